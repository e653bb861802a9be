"""Loads the data files of the signature rules, once, at import.

They are data so that a name can be added without touching a rule; README.md beside them explains each. Invariant: a
misspelt key, number or line stops the import with the file's name in the message; it never turns into a default.
"""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

_PACKAGE: Final = "ingest.signature"


class BugcheckFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one bug check code; parameters are counted from 1 as in Microsoft's reference."""

    name: str
    fault_address: int | None = None
    subcode: int | None = None
    deliberate: bool = False


class ModuleList(msgspec.Struct, frozen=True):
    """A set of module names, some of them given by their beginning."""

    names: frozenset[str]
    prefixes: tuple[str, ...]

    def __contains__(self, module: str) -> bool:
        return module in self.names or module.startswith(self.prefixes)

    def joined_with(self, other: "ModuleList") -> "ModuleList":
        """Return the list of all modules that are in either."""
        return ModuleList(names=self.names | other.names, prefixes=self.prefixes + other.prefixes)


def parse_bugchecks(text: str) -> Mapping[int, BugcheckFacts]:
    """Parse bugchecks.toml's text into facts by normalised code.

    Raises:
        ValueError: a code, key or parameter number is not usable.
    """
    facts: dict[int, BugcheckFacts] = {}
    tables: dict[str, Any] = tomllib.loads(text)
    for code_text, table in tables.items():
        try:
            code = int(code_text, 16)
            entry = msgspec.convert(table, BugcheckFacts)
        except (ValueError, msgspec.ValidationError) as error:
            raise ValueError(f"bugchecks.toml: [{code_text!r}]: {error}; correct that table") from error
        for number in (entry.fault_address, entry.subcode):
            if number is not None and not 1 <= number <= 4:
                raise ValueError(f"bugchecks.toml: [{code_text!r}]: parameter {number} is not 1 to 4; correct it")
        if code in facts:
            raise ValueError(f"bugchecks.toml: {code:#x} stands twice; remove one of the two tables")
        facts[code] = entry
    return facts


def parse_modules(text: str, file_name: str) -> ModuleList:
    """Parse a list of module names, one a line, a trailing ``*`` standing for any ending.

    Raises:
        ValueError: a line is not a lower-case name with at most one ``*``, at its end.
    """
    names: set[str] = set()
    prefixes: set[str] = set()
    for line in _lines(text):
        stem = line.removesuffix("*")
        if not stem or "*" in stem or " " in stem or stem != stem.lower():
            raise ValueError(f"{file_name}: {line!r} is not a lower-case name, with a * at its end if any; correct it")
        (names if stem == line else prefixes).add(stem)
    return ModuleList(names=frozenset(names), prefixes=tuple(sorted(prefixes)))


def parse_aliases(text: str) -> Mapping[str, str]:
    """Parse module_aliases.txt: two lower-case names a line, the name met and the name used.

    Raises:
        ValueError: a line does not have exactly two lower-case names.
    """
    aliases: dict[str, str] = {}
    for line in _lines(text):
        parts = line.split()
        if len(parts) != 2 or line != line.lower():
            raise ValueError(f"module_aliases.txt: {line!r} is not two lower-case names; correct it")
        aliases[parts[0]] = parts[1]
    return aliases


def _lines(text: str) -> list[str]:
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _text(file_name: str) -> str:
    return files(_PACKAGE).joinpath(file_name).read_text(encoding="utf-8")


BUGCHECKS: Final = parse_bugchecks(_text("bugchecks.toml"))
KERNEL_MODULES: Final = parse_modules(_text("kernel_modules.txt"), "kernel_modules.txt")
GENERIC_MODULES: Final = parse_modules(_text("generic_modules.txt"), "generic_modules.txt")
MODULE_ALIASES: Final = parse_aliases(_text("module_aliases.txt"))
