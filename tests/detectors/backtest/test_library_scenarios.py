"""The library: every file tells its story, runs at the level of cohorts, and says what is beyond `Fleet`."""

import itertools
from importlib import resources

import msgspec
import pytest

from detectors.backtest.checks import cohort_only, faults
from detectors.backtest.cohort import simulate
from detectors.backtest.library import ScenarioError, load, merged, names, parse
from detectors.backtest.scenario import Scenario
from ingest.rollouts import Rollout
from support.cohorts import Harness
from support.scenarios import SMALL

RECORDS = 250
# Stories of months, and floods, are cut: their first hours are enough to see that they run.
SECONDS_MAX = 36_000.0


def reduced(name: str) -> Scenario:
    """Return a scenario of the library with fewer invented devices and a nearer end."""
    scenario = load(name)
    liars = [msgspec.structs.replace(liar, count=min(liar.count, 200)) for liar in scenario.liars]
    end = scenario.warm_up_seconds + SECONDS_MAX
    return msgspec.structs.replace(scenario, liars=liars, duration_seconds=min(scenario.duration_seconds, end))


@pytest.mark.parametrize("name", names())
def test_every_story_runs_through_detection(name: str) -> None:
    scenario = reduced(name)
    trace = simulate(scenario, devices=150, partitions=1)
    harness = Harness(partitions=1)
    told = 0
    for one in itertools.islice(trace.feed, RECORDS):
        if isinstance(one, Rollout):
            harness.declare(one)
            told += 1
        else:
            harness.feed([one])
    assert harness.dead == []
    assert all(verdict.verdict.value != "error" for verdict in harness.said())
    assert len(trace.truths) == len(scenario.updates) == len(trace.minutes)
    assert sorted(scenario.truth.names) == sorted(
        f"{one.vendor}/{one.product}/{one.version}" for one in trace.truths if one.guilty
    )


@pytest.mark.parametrize("name", names())
def test_every_file_tells_its_story(name: str) -> None:
    text = resources.files("detectors.backtest").joinpath("scenarios", f"{name}.toml").read_text(encoding="utf-8")
    story = list(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    assert sum(len(line) for line in story) > 60
    assert load(name).name == name
    readme = resources.files("detectors.backtest").joinpath("README.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in readme


@pytest.mark.parametrize("name", names())
def test_what_is_expected_fits_the_truth(name: str) -> None:
    truth = load(name).truth
    if truth.names:
        assert "kill" not in truth.expect.must_not or truth.decision != "kill"
    else:
        assert "kill" in truth.expect.must_not or name == "healthy"
        assert not truth.expect.killed_or_held_before_broad
    assert truth.decision not in truth.expect.must_not


def test_fleet_can_run_the_three_of_2024() -> None:
    for name in ("healthy", "july-19", "july-19-rings"):
        assert cohort_only(load(name)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("crash_probability = 0.9", "rate_ratio = 3", "updates acme/content/291: incident.rate_ratio"),
        ("crash_probability = 0.9", 'at = "boot"\ncrash_probability = 0.9', "updates acme/content/291: incident.at"),
        ('version = "291"', 'version = "291"\nby_site = true', "updates acme/content/291: by_site"),
        ("crashes_per_boot = 0.01", "frailty_variance = 2", "background.frailty_variance"),
        ("weight = 1\nuptime", "weight = 1\nweekend_share = 0.5\nuptime", "fleet.form_factors laptop: weekend_share"),
        ("[truth]", '[[liars]]\ntenant = "beta"\ntells = "crashes"\ncount = 3\n[truth]', "liars"),
        ("duration_seconds = 3600", "duration_seconds = 700_000", "duration_seconds: more than a week"),
    ],
)
def test_what_fleet_cannot_do_is_named(old: str, new: str, words: str) -> None:
    assert old in SMALL
    assert cohort_only(parse(SMALL.replace(old, new, 1))) == [words]
    assert cohort_only(parse(SMALL)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[truth]", '[[liars]]\ntenant = "gamma"\ntells = "crashes"\ncount = 3\n[truth]', "tenant 'gamma' is none"),
        ('version = "291"', 'version = "291"\nrides_on = "acme/content/290"', "is no earlier update of the file"),
        ('version = "291"', 'version = "291"\nbegins_before_seconds = 9999', "must not exceed warm_up_seconds"),
        (
            "recover_share = 0.3",
            'recover_share = 0.3\nonly_on = { models = ["T15"] }',
            "models: T15: the fleet has T14",
        ),
        ("crashes_per_boot = 0.01", "by_hour = [1, 2]", "background.by_hour: give 24 numbers"),
        ("crash_probability = 0.9", "rate_ratio = 0.5", "is no update with an incident"),
        ("recover_share = 0.3", "recover_share = 0.3\ndelay_seconds = [9, 1]", "first number must not exceed"),
    ],
)
def test_what_contradicts_itself_is_refused(old: str, new: str, words: str) -> None:
    assert old in SMALL
    with pytest.raises(ScenarioError, match=words):
        parse(SMALL.replace(old, new, 1))


def test_a_file_may_extend_a_base_by_what_differs() -> None:
    made = parse('extends = "july-19"\nname = "mine"\n[fleet]\ndevices = 7\ntenants = [{ name = "one" }]\n')
    base = load("july-19")
    assert (made.name, made.fleet.devices, [tenant.name for tenant in made.fleet.tenants]) == ("mine", 7, ["one"])
    assert (made.updates, made.fleet.regions, made.seed) == (base.updates, base.fleet.regions, base.seed)
    assert faults(made) == []


def test_tables_are_merged_and_lists_replaced() -> None:
    base = {"a": {"b": {"c": 1, "d": 2}}, "list": [{"x": 1}, {"x": 2}]}
    assert merged(base, {"a": {"b": {"d": 3}}, "list": [{"y": 1}]}) == {
        "a": {"b": {"c": 1, "d": 3}},
        "list": [{"y": 1}],
    }
    assert base["a"] == {"b": {"c": 1, "d": 2}}


def test_an_unknown_base_and_a_circle_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"no base 'offices'; there are office, "):
        parse('extends = "offices"\n')
    with pytest.raises(ScenarioError, match=r"unknown field `sead`"):
        parse('extends = "office"\nsead = 3\n[truth]\ndecision = "proceed"\n')
