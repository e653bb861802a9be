"""JSON schemas of the wire types, as AsyncAPI takes them, with the documentation of each field.

msgspec gives schemas of JSON Schema 2020-12 whose description is the whole docstring. AsyncAPI's Schema Object is a
superset of draft 7: tuples are `items` there, and `discriminator` is a property's name. Field descriptions come from
the docstrings' `Attributes:`, of base classes too.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

REF = "#/components/schemas/{name}"
# Fields that mean the same in every message, documented once.
COMMON: dict[str, str] = {
    "kind": "what this record is.",
    "schema": "number of the wire schema it was written with.",
    "vendor": "who ships the update.",
    "product": "what is updated, as its vendor names it.",
    "version": "the update's version.",
    "update_kind": "what kind of update it is.",
    "rollout": "the rollout's id.",
    "gateway": "the gateway's name.",
    "form_factor": "what kind of machine the device is.",
    "model": "the device's model; empty where unknown.",
}
_ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return a docstring's text before `Attributes:`, and what that section says of each field."""
    about, _, section = inspect.cleandoc(text).partition("\nAttributes:\n")
    fields: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        found = _ATTRIBUTE.match(line)
        if found:
            name = found.group(1)
            fields[name] = found.group(2).strip()
        elif line.strip() and name:
            fields[name] += " " + line.strip()
    return about.strip(), fields


def field_docs(wire: type[Any]) -> dict[str, str]:
    """Return the documentation of a struct's fields, by their names on the wire.

    Its own docstring's comes first, then that of its bases, then what is common to all messages.
    """
    found = dict(COMMON)
    for base in reversed(wire.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct and base.__doc__:
            found.update(split_docstring(base.__doc__)[1])
    written = dict(zip(wire.__struct_fields__, wire.__struct_encode_fields__, strict=True))
    return {written.get(name, name): text for name, text in found.items() if name == "kind" or name in written}


def structs_in(types: Iterable[type[Any]]) -> list[type[Any]]:
    """Return every struct class that the types are made of, themselves included, in order of first sight."""
    found: dict[type[Any], None] = {}
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(types))
    while waiting:
        kind = waiting.pop(0)
        if isinstance(kind, msgspec.inspect.StructType):
            if kind.cls in found:
                continue
            found[kind.cls] = None
            waiting.extend(field.type for field in kind.fields)
        elif isinstance(kind, msgspec.inspect.UnionType):
            waiting.extend(kind.types)
        elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
            waiting.append(kind.item_type)
        elif isinstance(kind, msgspec.inspect.TupleType):
            waiting.extend(kind.item_types)
        elif isinstance(kind, msgspec.inspect.DictType):
            waiting.extend((kind.key_type, kind.value_type))
    return list(found)


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
