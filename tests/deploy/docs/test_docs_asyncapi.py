"""The AsyncAPI document: valid by the published schema, and true: golden bytes fit the schemas it gives."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from deploy.docs.asyncapi import as_yaml, document
from deploy.docs.messages import CHANNELS, JSON, Message, messages
from ingest.topics import TOPICS, Topics
from ingest.wire_docs import field_docs, split_docstring

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
JSON_MESSAGES = [message for message in messages() if message.content_type == JSON]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    loaded = yaml.safe_load(as_yaml(document()))
    assert isinstance(loaded, dict)
    return loaded


def golden_of(message: Message) -> Path:
    """Return the file with the golden bytes of a message: its type's name in words."""
    return GOLDEN / f"{re.sub(r'(?<!^)(?=[A-Z])', '_', message.name).lower()}.json"


def validator(made: dict[str, Any], message: Message) -> jsonschema.Draft7Validator:
    payload = made["components"]["messages"][message.name]["payload"]
    return jsonschema.Draft7Validator({**payload, "components": made["components"]})


def test_the_document_is_valid_asyncapi(made: dict[str, Any], shared_dir: Path) -> None:
    schema = json.loads((shared_dir / "schemas" / "asyncapi-3.1.0.schema.json").read_text(encoding="utf-8"))
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(made))
    assert not errors, "\n".join(f"{list(error.absolute_path)}: {error.message[:300]}" for error in errors[:5])


def test_a_document_with_a_misspelt_word_is_not_valid(made: dict[str, Any], shared_dir: Path) -> None:
    """The schema is strict enough to notice: otherwise the test above would prove nothing."""
    schema = json.loads((shared_dir / "schemas" / "asyncapi-3.1.0.schema.json").read_text(encoding="utf-8"))
    misspelt = {**made, "channels": {"crashes": {**made["channels"]["crashes"], "adress": "x"}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(misspelt)


def test_yaml_and_document_say_the_same(made: dict[str, Any]) -> None:
    assert made == json.loads(json.dumps(document()))


def test_every_declared_topic_is_a_channel_with_its_key_and_retention(made: dict[str, Any]) -> None:
    assert set(CHANNELS) == {topic.word for topic in TOPICS} == set(made["channels"])
    for topic in TOPICS:
        channel = made["channels"][topic.word]
        assert channel["address"] == Topics().name(topic.word)
        assert channel["x-key"] == topic.key
        assert channel["x-retention-hours"] == topic.retention_hours
        assert channel["x-compacted"] is topic.compacted
        kafka = channel["bindings"]["kafka"]["topicConfiguration"]
        assert kafka["cleanup.policy"] == ["compact" if topic.compacted else "delete"]


def test_every_reference_leads_somewhere(made: dict[str, Any]) -> None:
    """A reader follows them blindly."""
    references = set(re.findall(r"'\$ref': '#/([^']+)'", str(made)))
    assert references
    for reference in references:
        found: Any = made
        for part in reference.split("/"):
            found = found[part]


@pytest.mark.parametrize("message", JSON_MESSAGES, ids=lambda message: message.name)
def test_every_wire_type_has_golden_bytes_that_fit_its_schema(made: dict[str, Any], message: Message) -> None:
    value = json.loads(golden_of(message).read_bytes())
    validator(made, message).validate(value)


@pytest.mark.parametrize("message", JSON_MESSAGES, ids=lambda message: message.name)
def test_a_value_without_a_required_field_does_not_fit(made: dict[str, Any], message: Message) -> None:
    value = json.loads(golden_of(message).read_bytes())
    payload = made["components"]["messages"][message.name]["payload"]
    schema = made["components"]["schemas"][payload["$ref"].rpartition("/")[2]]
    for name in schema["required"]:
        assert not validator(made, message).is_valid({key: at for key, at in value.items() if key != name}), name


def test_every_field_on_the_wire_has_its_meaning(made: dict[str, Any]) -> None:
    """A field without one lacks it in its struct's docstring, under `Attributes:`."""
    silent = []
    for name, schema in made["components"]["schemas"].items():
        assert schema["description"], name
        fields = dict(schema.get("properties", {}))
        if schema.get("type") == "array":
            fields.update({place["title"]: place for place in schema["items"]})
        silent += [f"{name}.{field}" for field, about in fields.items() if "description" not in about]
    assert not silent, ", ".join(silent)


def test_rows_of_a_step_are_tuples_with_named_places(made: dict[str, Any]) -> None:
    row = made["components"]["schemas"]["FirstCrash"]
    assert [place["title"] for place in row["items"]][:4] == ["at_ms", "cell", "group", "exposed"]
    step = next(message for message in JSON_MESSAGES if message.name == "Step")
    value = json.loads(golden_of(step).read_bytes())
    value["windows"][0]["crashes"][0][0] = "noon"
    assert not validator(made, step).is_valid(value)


def test_a_docstring_gives_its_fields_their_meaning() -> None:
    text = """What it is.

    More of it.

    Attributes:
        first: one
            and more of it.
        second: two.
    """
    about, fields = split_docstring(text)
    assert about == "What it is.\n\nMore of it."
    assert fields == {"first": "one and more of it.", "second": "two."}


def test_a_field_keeps_the_meaning_that_its_base_gave_it() -> None:
    class Base(msgspec.Struct):
        """A base.

        Attributes:
            kept: as the base says.
            changed: as the base says.
        """

        kept: int
        changed: int

    class Child(Base):
        """A child.

        Attributes:
            changed: as the child says.
            gone: documented, but no field.
        """

    docs = field_docs(Child)
    assert docs["kept"] == "as the base says."
    assert docs["changed"] == "as the child says."
    assert "gone" not in docs
