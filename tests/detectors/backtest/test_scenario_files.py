"""Scenario files: what is refused, with which words, and that the README tells of every field."""

from pathlib import Path

import msgspec
import pytest

from detectors.backtest import environment
from detectors.backtest import scenario as structs
from detectors.backtest.library import ScenarioError, load, names, parse
from detectors.backtest.scenario import Scenario
from support.scenarios import SMALL


@pytest.mark.parametrize("name", ["healthy", "july-19", "july-19-rings"])
def test_the_library_loads(name: str) -> None:
    assert name in names()
    assert load(name).name == name


def test_an_unknown_name_lists_the_library() -> None:
    with pytest.raises(ScenarioError, match=r"july-20.*healthy, .*july-19, july-19-rings"):
        load("july-20")


def test_a_path_is_read_and_a_missing_one_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SMALL)
    assert load(str(file)).name == "small"
    with pytest.raises(ScenarioError, match=r"cannot read the scenario .*other\.toml"):
        load(str(tmp_path / "other.toml"))


REFUSED = [
    ("seed = 7", "seed = 7\nsead = 8", "unknown field `sead`"),
    ("check_in_seconds = 60", "checkin_seconds = 60", "unknown field `checkin_seconds`"),
    ("recover_share = 0.3", "recovery_share = 0.3", "unknown field `recovery_share`"),
    ('models = [{ name = "T14" }]', 'models = [{ name = "T14", wait = 3 }]', "unknown field `wait`"),
    ("seed = 7\n", "", "missing required field `seed`"),
    ("crash_probability = 0.9", "crash_probability = 1.1", "<= 1.0"),
    ("devices = 300", "devices = 0", ">= 1"),
    ("devices = 300", 'devices = "300"', "Expected `int`"),
    ('name = "laptop"', 'name = "tablet"', "Invalid enum value 'tablet'"),
    ('decision = "kill"', 'decision = "stop"', "Invalid enum value 'stop'"),
    ("on_by_hour = [0.5,", "on_by_hour = [", "length"),
    ("start = 2024-07-19T03:59:00Z", "start = 2024-07-19T03:59:00", "start: give the offset"),
    ("warm_up_seconds = 600", "warm_up_seconds = 3600", "warm_up_seconds: must be shorter"),
    ("reaction_seconds = 10", "reaction_seconds = 4", "must be at least step_seconds"),
    ("share = 0.8 }", "share = 0.7 }", "shares add up to 0.9, not 1"),
    ('name = "beta"', 'name = "alpha"', "fleet.tenants: 'alpha' is there twice"),
    ('name = "22631.3880"', 'name = "win11"', "must be like 22631.3880"),
    ("reboot_seconds = [60, 120]", "reboot_seconds = [120, 60]", "first number must not exceed"),
    ("boot_seconds = [30, 60]", "boot_seconds = [1, 60]", "must take at least step_seconds"),
    ('product = "content"\nversion', 'product = "contents"\nversion', "no such product"),
    ('version = "291"', 'version = "290"', "already on devices"),
    ('rings = [{ name = "*", over', 'rings = [{ name = "early", over', "ring 'early' is none of *, broad, canary"),
    ('rings = [{ name = "*", over', 'rings = [{ name = "canary" }, { name = "*", over', "`*` stands alone"),
    ('version = "291"', 'version = "291"\ndeclare = "rules"', "a rule needs the rings by name"),
    ('versions = ["7"]', 'versions = ["8"]', "no device has 8"),
    ('guilty = "acme/content/291"', 'guilty = "acme/content/292"', "is no update with an incident"),
    ('guilty = "acme/content/291"', "", "there is an incident; name its update"),
    ("seed = 7", "seed = ", "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "words"), REFUSED, ids=[words[:40] for _, _, words in REFUSED])
def test_what_is_wrong_is_refused_by_name(old: str, new: str, words: str) -> None:
    assert old in SMALL
    with pytest.raises(ScenarioError) as caught:
        parse(SMALL.replace(old, new, 1))
    assert words in str(caught.value)


def _fields(table: type[msgspec.Struct]) -> set[str]:
    return set(table.__struct_fields__)


def test_the_readme_documents_every_field() -> None:
    readme = (Path(structs.__file__).parent / "README.md").read_text()
    tables = [
        table
        for module in (structs, environment)
        for table in vars(module).values()
        if isinstance(table, type) and issubclass(table, msgspec.Struct) and table.__module__ == module.__name__
    ]
    assert {Scenario, environment.Liar} <= set(tables)
    missing = sorted(name for table in tables for name in _fields(table) if f"`{name}`" not in readme)
    assert missing == []
