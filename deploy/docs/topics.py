"""`docs/topics.md`: the topics and every field of their messages, to be read by a person."""

from typing import Any

from deploy.docs.asyncapi import PARTITIONING, retention
from deploy.docs.markdown import head, table
from deploy.docs.messages import CHANNELS, messages
from deploy.docs.schemas import component_of, components
from ingest.topics import TOPICS, Topics

INTRODUCTION = """
The log is the only run-time link between the gateway and the stages. [asyncapi.yaml](asyncapi.yaml) says the same for
machines. Names are those of the lane `live`; another lane's stand apart (`cordon.replay-1.crashes.v1`).
"""


def topics_page() -> str:
    """Return the page."""
    every = messages()
    references, schemas = components(message.wire for message in every if message.wire is not None)
    reference = iter(references)
    text = head("Topics and wire types", "`ingest/topics.py` and the wire types")
    text += INTRODUCTION + "\n## Topics\n\n" + _topics() + "\n## Messages\n"
    named = set()
    for message in every:
        if message.wire is None:
            text += f"\n### {message.name}\n\n{message.about}\n"
            continue
        name = component_of(next(reference))
        named.add(name)
        text += f"\n### {message.name}\n\n{_struct(schemas[name])}"
    text += "\n## Parts of messages\n"
    for name, schema in schemas.items():
        if name not in named:
            text += f"\n### {name}\n\n{_struct(schema)}"
    return text


def _topics() -> str:
    rows = []
    for topic in TOPICS:
        channel = CHANNELS[topic.word]
        rows.append(
            (
                f"`{Topics().name(topic.word)}`",
                topic.doc,
                ", ".join(message.name for message in channel.messages) or "none yet",
                topic.key,
                PARTITIONING[topic.spread],
                retention(topic),
                ", ".join(channel.writers) or "nothing yet",
                ", ".join(channel.readers) or "nothing yet",
            )
        )
    return table(("topic", "carries", "messages", "key", "partitioned by", "kept", "written by", "read by"), rows)


def _struct(schema: dict[str, Any]) -> str:
    text = str(schema.get("description", "")) + "\n"
    if "enum" in schema:
        return f"{text}\nOne of {', '.join(f'`{word}`' for word in schema['enum'])}.\n"
    if schema.get("type") == "array":
        rows = [(field["title"], _kind(field), "", field.get("description", "")) for field in schema["items"]]
        return f"{text}\nAn array, in this order:\n\n" + table(("place", "type", "default", "meaning"), rows)
    required = set(schema.get("required", ()))
    fields = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else f"`{_plain(field.get('default', ''))}`"
        fields.append((f"`{name}`", _kind(field), default, field.get("description", "")))
    return text + "\n" + table(("field", "type", "default", "meaning"), fields)


def _plain(value: Any) -> str:
    return '""' if value == "" else str(value)


def _kind(field: dict[str, Any]) -> str:
    """Return a short text for a field's type and range."""
    for key in ("allOf", "anyOf"):
        if key in field:
            return " or ".join([_kind(option) for option in field[key]])
    if "$ref" in field:
        return component_of(field)
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    kind = str(field.get("type", "any"))
    if kind == "array":
        items = field.get("items", {})
        inner = ", ".join(_kind(item) for item in items) if isinstance(items, list) else _kind(items)
        kind = f"[{inner}]" if isinstance(items, list) else f"list of {inner}"
    elif kind == "object" and isinstance(field.get("additionalProperties"), dict):
        kind = f"map to {_kind(field['additionalProperties'])}"
    elif field.get("contentEncoding"):
        kind = "bytes"
    return kind + _range(field)


def _range(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "minLength": "length ≥", "maxLength": "length ≤"}
    signs["maxItems"] = "items ≤"
    said = [f"{sign} {field[name]}" for name, sign in signs.items() if name in field]
    return f" ({', '.join(said)})" if said else ""
