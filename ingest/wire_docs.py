"""What the docstrings of wire types say of their fields, for every generated page and document.

Field documentation is written once, in a struct's `Attributes:` section. The invariant: a field is called here what it
is called on the wire.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

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


def structs_in(types: Iterable[Any]) -> list[type[Any]]:
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
