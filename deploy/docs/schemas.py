"""JSON schemas of the wire types, as AsyncAPI takes them, with the documentation of each field.

msgspec gives schemas of JSON Schema 2020-12 whose description is the whole docstring. AsyncAPI's Schema Object is a
superset of draft 7: tuples are `items` there, and `discriminator` is a property's name. Field descriptions come from
the docstrings' `Attributes:`, of base classes too.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from ingest.wire_docs import field_docs, split_docstring, structs_in

REF = "#/components/schemas/{name}"


def component_of(reference: dict[str, Any]) -> str:
    """Return the name of the component that a reference points to."""
    return str(reference["$ref"]).rpartition("/")[2]


def components(types: Iterable[type[Any]]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return a reference for each type, and the schemas that they refer to by component name."""
    types = list(types)
    references, schemas = msgspec.json.schema_components(types, ref_template=REF)
    # msgspec names a component by its class, or by module and class where two classes share a name.
    classes = {name: cls for cls in structs_in(types) for name in (cls.__name__, f"{cls.__module__}.{cls.__name__}")}
    described = {name: _described(_adapted(schemas[name]), classes.get(name)) for name in sorted(schemas)}
    return list(references), described


def _described(schema: dict[str, Any], wire: type[Any] | None) -> dict[str, Any]:
    if "description" in schema:
        schema["description"] = split_docstring(schema["description"])[0]
    if wire is None:
        return schema
    docs = field_docs(wire)
    for name, about in schema.get("properties", {}).items():
        if name in docs:
            # Draft 7 ignores what stands beside a `$ref`.
            schema["properties"][name] = {"description": docs[name], **_beside(about)}
    if schema.get("type") == "array":
        for position, name in enumerate(wire.__struct_fields__):
            about = {"title": name, **({"description": docs[name]} if name in docs else {})}
            schema["items"][position] = {**about, **_beside(schema["items"][position])}
    return schema


def _beside(schema: dict[str, Any]) -> dict[str, Any]:
    return {"allOf": [schema]} if "$ref" in schema else schema


def _adapted(schema: Any) -> Any:
    """Return a schema in the words of draft 7, as AsyncAPI extends it."""
    if isinstance(schema, list):
        return [_adapted(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    adapted = {name: _adapted(value) for name, value in schema.items() if name != "properties"}
    if "properties" in schema:
        # A property may be called what a keyword is called.
        adapted["properties"] = {name: _adapted(value) for name, value in schema["properties"].items()}
    if "prefixItems" in adapted:
        adapted["items"] = adapted.pop("prefixItems")
    if isinstance(adapted.get("discriminator"), dict):
        adapted["discriminator"] = adapted["discriminator"]["propertyName"]
    return adapted
