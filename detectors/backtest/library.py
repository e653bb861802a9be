"""Find a scenario by name in the library or by path, read it and refuse what cannot run.

A file may say `extends = "NAME"`: it is then that base with what differs. Tables are merged name by name; anything
else, lists of tables included, replaces what the base has. Bases lie in `scenarios/bases`; they are no scenarios.
"""

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from detectors.backtest.checks import faults
from detectors.backtest.scenario import Scenario

# A base may extend another; a longer chain is a circle.
_EXTENDS_MAX: Final = 4


class ScenarioError(Exception):
    """A scenario is unknown or refused; the message says what to change."""


def names() -> list[str]:
    """Return the names of the scenarios that come with Cordon."""
    return _names_in("scenarios")


def parse(text: str, where: str = "scenario") -> Scenario:
    """Read a scenario's TOML.

    Raises:
        ScenarioError: not TOML, an unknown base or field, a value out of range, or parts that contradict each other.
    """
    try:
        scenario = msgspec.convert(_table(text, where, _EXTENDS_MAX), Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{where}: {error}; detectors/backtest/README.md lists every field") from error
    found = faults(scenario)
    if found:
        raise ScenarioError(f"{where}: " + "; ".join(found))
    return scenario


def load(name_or_path: str) -> Scenario:
    """Load a scenario by its name in the library, or from a file if the text has a slash or ends in `.toml`.

    Raises:
        ScenarioError: no such scenario (the message lists the library), or one that is refused.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        try:
            return parse(Path(name_or_path).read_text(encoding="utf-8"), name_or_path)
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"cannot read the scenario {name_or_path}: {error}") from error
    if name_or_path not in names():
        raise ScenarioError(
            f"no scenario {name_or_path!r}; the library has {', '.join(names())}, or give a file's path"
        )
    return parse(_read("scenarios", name_or_path), name_or_path)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`: tables are merged name by name, everything else is replaced.

    Example:
        >>> merged({"fleet": {"devices": 9, "tenants": [1]}, "seed": 1}, {"fleet": {"tenants": [2]}})
        {'fleet': {'devices': 9, 'tenants': [2]}, 'seed': 1}
    """
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _table(text: str, where: str, deeper: int) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{where}: not TOML: {error}") from error
    if "extends" not in table:
        return table
    base = table.pop("extends")
    if deeper == 0:
        raise ScenarioError(f"{where}: extends: more than {_EXTENDS_MAX} bases, one of another; is it a circle?")
    for folder in ("scenarios/bases", "scenarios"):
        if base in _names_in(folder):
            return merged(_table(_read(folder, base), f"{where}: extends {base}", deeper - 1), table)
    known = ", ".join([*_names_in("scenarios/bases"), *_names_in("scenarios")])
    raise ScenarioError(f"{where}: extends: no base {base!r}; there are {known}")


def _names_in(folder: str) -> list[str]:
    found = resources.files("detectors.backtest").joinpath(folder)
    return sorted(item.name.removesuffix(".toml") for item in found.iterdir() if item.name.endswith(".toml"))


def _read(folder: str, name: str) -> str:
    return resources.files("detectors.backtest").joinpath(folder, f"{name}.toml").read_text(encoding="utf-8")
