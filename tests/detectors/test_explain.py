"""What a verdict tells people of the updates on a rollout's devices: the likeliest cause first."""

import msgspec

from detectors.counts import CohortCounts
from detectors.explain import Ranking, explanation
from detectors.tally import CrashTally
from ingest.windows import AtRisk
from support.cohorts import CELLS, T0, window

BASE = CELLS[0]


def counts(rows: dict[str, tuple[int, int]]) -> CohortCounts:
    made = CohortCounts([True], [True])
    said = [AtRisk(cell, 0, *both) for cell, both in rows.items()]
    made.state(T0, [(0, window(full=True, at_risk=said))])
    return made


def test_the_update_that_explains_the_crashes_comes_first_whoever_is_asked_of() -> None:
    """The rival is what crashes: with the rollout and without it, and hardly anything without the rival."""
    fleet = counts({BASE: (900, 7000), f"{BASE}|r-rival": (950, 960)})
    tally = CrashTally(exposed=51, control=52, cells={BASE: [1, 12], f"{BASE}|r-rival": [50, 40]})
    text = explanation("r-own", fleet, tally, 3600.0)
    assert text.startswith("By counts alone, the likeliest cause first: r-rival: ")
    assert text.index("r-rival: ") < text.index("r-own: ")
    assert "of them explained" in text
    assert text == explanation("r-own", fleet, tally, 3600.0)


def test_without_a_rival_or_a_device_there_is_nothing_to_say() -> None:
    assert explanation("r-own", counts({BASE: (900, 7000)}), CrashTally(cells={BASE: [5, 5]}), 60.0) == ""
    assert explanation("r-own", counts({f"{BASE}|r-rival": (0, 10)}), CrashTally(), 60.0) == ""


def test_two_that_are_always_together_are_said_to_be_inseparable() -> None:
    fleet = counts({BASE: (0, 8000), f"{BASE}|r-rival": (1000, 0)})
    text = explanation("r-own", fleet, CrashTally(cells={f"{BASE}|r-rival": [60, 0], BASE: [0, 10]}), 3600.0)
    assert "can't be told apart from" in text


def test_a_ranking_lies_in_the_snapshot() -> None:
    said = Ranking(7, "so.")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=Ranking) == said
