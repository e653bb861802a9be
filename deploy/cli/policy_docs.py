"""Every field of a policy with its value and what `policy.toml` says of it: nothing is listed by hand.

The fields come from the struct, the words from the comments of the built-in file, so that a field added there is shown
and explained here without a change.
"""

import re
from importlib import resources
from typing import Any, NamedTuple

import msgspec

_SETTING = re.compile(r"^(?:# )?([a-z_][a-z0-9_]*) = ")
_TABLE = re.compile(r"^\[([a-z_]+)\]$")


class Field(NamedTuple):
    """One setting: its dotted name, its value, and its explanation."""

    name: str
    value: Any
    doc: str


def fields_of(policy: msgspec.Struct) -> list[Field]:
    """Return every field of a policy, tables after the names that stand outside of them."""
    docs = comments(resources.files("detectors").joinpath("policy.toml").read_text(encoding="utf-8"))
    found = list(_walk(policy, ""))
    found.sort(key=lambda pair: "." in pair[0])
    return [Field(name, value, docs.get(name, "")) for name, value in found]


def _walk(struct: msgspec.Struct, prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            found += _walk(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def comments(text: str) -> dict[str, str]:
    """Return the comment that stands over each setting of a TOML file, by dotted name.

    Settings that follow each other without a blank line or a comment in between share the comment over the first. A
    setting that is commented out, as `# name = value`, counts as one.
    """
    docs: dict[str, str] = {}
    table, lines, fresh = "", list[str](), True
    for line in text.splitlines():
        if match := _TABLE.match(line):
            table, lines = f"{match[1]}.", []
        elif match := _SETTING.match(line):
            docs.setdefault(f"{table}{match[1]}", " ".join(lines))
            fresh = True
        elif line.startswith("# "):
            lines = [*([] if fresh else lines), line[2:].strip()]
            fresh = False
        elif not line:
            lines, fresh = [], True
    return docs
