"""A trace says what real grouping says of the same devices' reports, step by step.

In grouping a rollout's minutes begin at a second of its own, in a trace at the full minute; here they begin alike.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.backtest.cohort import simulate
from detectors.backtest.cohort.declaring import watched_of
from detectors.backtest.cohort.dice import Dice
from detectors.backtest.cohort.digest import Digest
from detectors.backtest.cohort.facts import Life
from detectors.backtest.cohort.kinds import Kinds
from detectors.backtest.cohort.people import People
from detectors.backtest.cohort.shipping import assign
from detectors.backtest.scenario import Scenario
from ingest.grouping import cohorts
from ingest.windows import CohortWindow, Step
from support.cohort_reports import Reports, through_grouping
from support.scenarios import SMALL, small

PARTITIONS = 2
STEP_SECONDS = 20.0
PARTS = ("since", "watermark", "partition", "at risk", "margins", "heard", "crashes", "totals")


@pytest.fixture(autouse=True, scope="module")
def full_minutes() -> Iterator[None]:
    """Let every rollout's minutes begin at the full minute in grouping, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "offset_seconds", lambda _rollout: 0)
        yield


def both_ways(scenario: Scenario) -> tuple[list[Step], list[Step]]:
    """Return the steps of the trace, and of grouping."""
    trace = simulate(scenario, partitions=PARTITIONS, step_seconds=STEP_SECONDS)
    steps = [one for one in trace.feed if isinstance(one, Step)]
    dice, kinds = Dice(scenario.seed), Kinds(scenario)
    people = People(scenario, scenario.fleet.devices, PARTITIONS, dice)
    assigned = assign(scenario, people)
    (chunk,) = people.chunks()
    facts = Life(scenario, people, assigned, dice, kinds).facts(chunk)
    digest = Digest(len(scenario.updates), PARTITIONS)
    digest.add(facts)
    watched = watched_of(scenario, digest)
    times = sorted({step.watermark_ms for step in steps})
    return steps, through_grouping(Reports(scenario, people, facts), watched, times, PARTITIONS)


def tables(steps: Iterable[Step]) -> list[tuple[Any, ...]]:
    """Return, after each step, everything that a reader knows of each rollout."""
    at_risk: dict[tuple[int, str, str, int], tuple[int, int]] = {}
    margins: dict[tuple[int, str, str, int], tuple[int, int]] = {}
    told: list[tuple[Any, ...]] = []
    for step in sorted(steps, key=lambda one: (one.watermark_ms, one.partition)):
        heard: Counter[str] = Counter()
        crashes = []
        totals = []
        for window in sorted(step.windows, key=lambda one: one.rollout):
            _apply(step.partition, window, at_risk, margins)
            heard.update(window.rollout + repr(row) for row in window.heard)
            crashes += sorted(_crash(window.rollout, one) for one in window.crashes)
            totals.append((window.rollout, window.exposed_total, window.crash_total))
        mine = {key: row for key, row in at_risk.items() if key[0] == step.partition and row != (0, 0)}
        told.append((step.since_ms, step.watermark_ms, step.partition, mine, dict(margins), heard, crashes, totals))
    return told


def _crash(rollout: str, crash: Any) -> tuple[Any, ...]:
    row = msgspec.structs.asdict(crash)
    # These reports name what a crash looks like by its kind's number, and carry no frames.
    for name in ("signature", "frames"):
        row.pop(name)
    return (rollout, *row.values())


def _apply(partition: int, window: CohortWindow, at_risk: Any, margins: Any) -> None:
    if window.full:
        for table in (at_risk, margins):
            for key in [key for key in table if key[:2] == (partition, window.rollout)]:
                del table[key]
    for row in window.at_risk:
        at_risk[partition, window.rollout, row.cell, row.group] = (row.exposed, row.control)
    for margin in window.margins:
        margins[partition, window.rollout, margin.margin, margin.group] = (margin.exposed, margin.control)


SHORT = SMALL.replace("clock_skew_seconds = 3", "clock_skew_seconds = 0").replace("devices = 300", "devices = 150")
VERSION = 'version = "291"'
ENVIRONMENT = """
[environment]
reboots = [{ starts_after_seconds = 300, over_seconds = 600, share = 0.5 }]
power_cuts = [{ starts_after_seconds = 900, sites = 3, out_seconds = [200, 1500], crash_share = 0.5 }]
heat = [{ starts_after_seconds = 100, over_seconds = 2000, factor = 5 }]
site_shocks = [{ starts_after_seconds = 0, over_seconds = 2000, sites = 6, share = 0.7 }]
switched_off = [{ starts_after_seconds = 800, over_seconds = 60, share = 0.3, arm = "control", off_seconds = 900 }]
"""
OTHER = """
[[updates]]
vendor = "acme"
product = "sensor"
version = "8"
reboots = true
rings = [{ name = "*", over_seconds = 900 }]
"""
NEWER = OTHER.replace("sensor", "content").replace('"8"', '"292"').replace("[{", "[{ starts_after_seconds = 500,")
LIARS = """
[[liars]]
tenant = "beta"
tells = "crashes"
count = 20
[[liars]]
tenant = "alpha"
tells = "control_crashes"
count = 20
sites = 4
[[liars]]
tenant = "alpha"
tells = "check_ins"
count = 20
"""
OUTAGE = "[environment]\noutages = [{ starts_after_seconds = 450, over_seconds = 400 }]\n"
VARIANTS: dict[str, Sequence[tuple[str, str]]] = {
    "as it is": (),
    "five minutes": (("check_in_seconds = 60", "check_in_seconds = 300"),),
    "declared": (
        (VERSION, f'{VERSION}\ndeclare = "rules"'),
        ('{ name = "*", over_seconds = 600 }', '{ name = "canary" }, { name = "broad", over_seconds = 600 }'),
    ),
    "reboots": ((VERSION, f"{VERSION}\nreboots = true"),),
    "by check-in": ((VERSION, f'{VERSION}\ndelivery = "check_in"'),),
    "without offers": ((VERSION, f"{VERSION}\nsays_offered = false"),),
    "slow harm": (("crash_probability = 0.9", "rate_ratio = 5"),),
    "delayed harm": (("crash_probability = 0.9", "crash_probability = 0.9\ndelay_seconds = [60, 900]"),),
    "harm at boot": (
        ("crash_probability = 0.9", 'crash_probability = 0.9\nat = "boot"'),
        ("[roll", ENVIRONMENT + "[roll"),
    ),
    "surroundings": (("[rollout_system]", ENVIRONMENT + "[rollout_system]"),),
    "another update": (("[rollout_system]", OTHER + "[rollout_system]"),),
    "a newer version": (("[rollout_system]", NEWER + "[rollout_system]"),),
    "liars": (("[rollout_system]", LIARS + "[rollout_system]"),),
}


def text_of(name: str) -> str:
    """Return the scenario of a variant."""
    text = SHORT
    for old, new in VARIANTS[name]:
        assert old in text
        text = text.replace(old, new, 1)
    return text


# A device that is busy with one update when another comes is told a little differently; each of them counts once.
SEVERAL_UPDATES = ("another update", "a newer version")


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in SEVERAL_UPDATES])
def test_a_trace_says_what_grouping_says(name: str) -> None:
    said, grouped = (tables(steps) for steps in both_ways(small(text_of(name))))
    assert len(said) == len(grouped)
    assert sum(len(row[6]) for row in said) > 10
    for mine, theirs in zip(said, grouped, strict=True):
        for part, left, right in zip(PARTS, mine, theirs, strict=True):
            assert left == right, (part, mine[:3])


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_the_seed(seed: int) -> None:
    said, grouped = (tables(steps) for steps in both_ways(small(text_of("surroundings"), seed=seed)))
    assert [row[:-1] for row in said] == [row[:-1] for row in grouped]
    for mine, theirs in zip(said, grouped, strict=True):
        for (_, exposed, crashes), (_, known, admitted) in zip(mine[-1], theirs[-1], strict=True):
            # A device that crashes in the two seconds between its offer and the activation tells the old version once.
            assert abs(exposed - known) <= 1
            assert crashes == admitted


@pytest.mark.parametrize("name", SEVERAL_UPDATES)
def test_several_updates_differ_in_a_few_devices_at_most(name: str) -> None:
    said, grouped = (tables(steps) for steps in both_ways(small(text_of(name))))
    worst = 0
    for mine, theirs in zip(said, grouped, strict=True):
        assert mine[:3] == theirs[:3]
        cells = set(mine[3]) | set(theirs[3])
        off = sum(
            abs(a - b)
            for cell in cells
            for a, b in zip(mine[3].get(cell, (0, 0)), theirs[3].get(cell, (0, 0)), strict=True)
        )
        worst = max(worst, off)
        assert len(mine[6]) == len(theirs[6])
    split = {cell.split("|")[5] for row in said for _, _, cell, _ in row[3] if cell.count("|") == 5}
    assert len(split) == (2 if name == "another update" else 0)
    # Each device off is counted where it is and where it is not, in each rollout.
    assert worst <= 12
