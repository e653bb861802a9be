"""The AsyncAPI 3.1 document: every topic a channel, every wire type a message with its JSON schema."""

import tomllib
from pathlib import Path
from typing import Any

import yaml

from deploy.docs.messages import CHANNELS, JSON, Message, messages
from deploy.docs.schemas import component_of, components
from ingest.events import SCHEMA, SCHEMA_WRITTEN
from ingest.topics import TOPICS, Spread, Topic, Topics

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
HOUR_MS = 3_600_000
PARTITIONING: dict[Spread, str] = {
    Spread.DEVICE: "device: the first four bytes of its pseudonym, modulo the partition count",
    Spread.KEYED: "CRC-32 of the key, modulo the partition count",
    Spread.ONE: "one partition",
}
INFO = f"""\
Crash telemetry with a kill switch. This page is generated from the declarations in the code (`make docs`).

- Values are JSON unless a message says otherwise, compressed with zstd in the log; readers ignore unknown fields.
- `schema` stands in each message: writers emit {SCHEMA_WRITTEN}, readers accept {SCHEMA} and the one before it, if any.
- Times are integer milliseconds since the Unix epoch, UTC, in fields ending `_ms`.
- The names here are those of the lane `live`. Another lane's stand apart: `cordon.replay-1.crashes.v1`.
- Order holds within a partition. Records may come twice; every stage is idempotent.
"""


def document() -> dict[str, Any]:
    """Return the document as plain dictionaries, in the order it is written."""
    every = messages()
    references, schemas = components(message.wire for message in every if message.wire is not None)
    reference = iter(references)
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Cordon's log",
            "version": tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"],
            "description": INFO,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON,
        "servers": _servers(),
        "channels": {topic.word: _channel(topic) for topic in TOPICS},
        "operations": _operations(),
        "components": {
            "messages": {
                message.name: _opaque(message) if message.wire is None else _message(message, next(reference), schemas)
                for message in every
            },
            "schemas": schemas,
        },
    }


def as_yaml(made: dict[str, Any]) -> str:
    """Return a document as YAML that is the same on every machine."""
    return yaml.dump(made, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def retention(topic: Topic) -> str:
    """Say how long a topic's records are kept."""
    if topic.compacted:
        return "the latest record of each key"
    if topic.retention_hours is None:
        return "for ever"
    hours = topic.retention_hours
    return f"{hours // 24} days" if hours % 24 == 0 else f"{hours} hours"


class _Dumper(yaml.SafeDumper):
    """Writes long texts as blocks, and never an alias for a schema that stands in two places."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's signature
        """Write everything out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _servers() -> dict[str, Any]:
    return {
        "embedded": {
            "host": "localhost",
            "pathname": "/{data_dir}/log",
            "protocol": "sqlite",
            "description": (
                "The embedded log: SQLite files in the data folder of the one process that owns them. Not reachable "
                "over a network; from outside, use the HTTP listeners."
            ),
            "variables": {"data_dir": {"default": "cordon-data", "description": "The setting `data_dir`."}},
        },
        "kafka": {
            "host": "{bootstrap_servers}",
            "protocol": "kafka",
            "description": (
                "The distributed log: the same topics on Apache Kafka, by the same interface. Not part of this "
                "version; the channels' Kafka bindings are what it will be created with."
            ),
            "variables": {"bootstrap_servers": {"default": "localhost:9092", "description": "The brokers."}},
            "bindings": {"kafka": {"bindingVersion": "0.5.0"}},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    channel = CHANNELS[topic.word]
    name = Topics().name(topic.word)
    made: dict[str, Any] = {
        "address": name,
        "title": topic.doc,
        "description": _about(topic),
        "messages": {m.name: {"$ref": f"#/components/messages/{m.name}"} for m in channel.messages},
        "bindings": {"kafka": _kafka(topic, name)},
        "x-key": topic.key,
        "x-partitioned-by": PARTITIONING[topic.spread],
        "x-retention-hours": topic.retention_hours,
        "x-compacted": topic.compacted,
        "x-writers": list(channel.writers),
        "x-readers": list(channel.readers),
    }
    if not channel.messages:
        del made["messages"]
    return made


def _about(topic: Topic) -> str:
    channel = CHANNELS[topic.word]
    writers = ", ".join(channel.writers) or "nothing in this version"
    readers = ", ".join(channel.readers) or "nothing in this version"
    return (
        f"Key: {topic.key}. Partitioned by {PARTITIONING[topic.spread]}. Kept: {retention(topic)}. "
        f"Written by: {writers}. Read by: {readers}."
    )


def _kafka(topic: Topic, name: str) -> dict[str, Any]:
    configuration: dict[str, Any] = {"cleanup.policy": ["compact" if topic.compacted else "delete"]}
    if not topic.compacted:
        hours = topic.retention_hours
        configuration["retention.ms"] = -1 if hours is None else hours * HOUR_MS
    made: dict[str, Any] = {"topic": name, "topicConfiguration": configuration, "bindingVersion": "0.5.0"}
    if topic.spread is Spread.ONE:
        made["partitions"] = 1
    return made


def _operations() -> dict[str, Any]:
    made = {}
    for word, channel in CHANNELS.items():
        for action, stages, does in (("send", channel.writers, "writes"), ("receive", channel.readers, "reads")):
            for stage in stages:
                made[f"{stage}-{does}-{word}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{word}"},
                    "title": f"The {stage} stage {does} {Topics().name(word)}",
                }
    return made


def _message(message: Message, reference: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    about = str(schemas[component_of(reference)].get("description", ""))
    return {
        "name": message.name,
        "title": message.name,
        "summary": about.partition("\n\n")[0],
        "contentType": message.content_type,
        "payload": reference,
    }


def _opaque(message: Message) -> dict[str, Any]:
    return {
        "name": message.name,
        "title": message.name,
        "summary": message.about,
        "contentType": message.content_type,
        "payload": {"type": "string", "format": "binary"},
    }
