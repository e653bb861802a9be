"""Find a scenario by name in the library or by path, read it and refuse what cannot run."""

import tomllib
from importlib import resources
from pathlib import Path

import msgspec

from detectors.backtest.checks import faults
from detectors.backtest.scenario import Scenario


class ScenarioError(Exception):
    """A scenario is unknown or refused; the message says what to change."""


def names() -> list[str]:
    """Return the names of the scenarios that come with Cordon."""
    folder = resources.files("detectors.backtest") / "scenarios"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def parse(text: str, where: str = "scenario") -> Scenario:
    """Read a scenario's TOML.

    Raises:
        ScenarioError: not TOML, an unknown field, a value out of range, or parts that contradict each other.
    """
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{where}: not TOML: {error}") from error
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
    file = resources.files("detectors.backtest") / "scenarios" / f"{name_or_path}.toml"
    return parse(file.read_text(encoding="utf-8"), name_or_path)
