"""What every peer passes: golden alarms, the same each time, blind to the future, silent about nothing."""

import doctest
import importlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.backtest import peers
from detectors.backtest.peers.peer import Alarm, Peer
from detectors.backtest.peers.registry import PEERS, names, peer
from detectors.backtest.trace import Minute
from support.minutes import BEGAN_MS, MINUTE_MS, drawn, indices, minute

FOLDER = Path(peers.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
STREAMS = {
    "healthy": drawn(1),
    "sudden": drawn(2, ratio=lambda index: 1000.0),
    "slow": drawn(3, ratio=lambda index: 5.0),
    # A fleet that crashes so much that every peer has a lot to say, in both arms.
    "storm": drawn(4, ratio=lambda index: 20.0, background=0.002),
}
# The first two alarms, and how many there are.
GOLDEN: dict[str, dict[str, tuple[list[int], int]]] = {
    "healthy": {
        "prometheus-rate": ([866, 1072], 3),
        "ewma-3-sigma": ([569, 1099], 3),
        "isolation-forest": ([569, 824], 21),
    },
    "sudden": {
        "crashlytics-velocity": ([82], 1),
        "play-vitals": ([1199, 1199], 3),
        "sentry-crash-rate": ([7, 123], 8),
        "kayenta-mann-whitney": ([299], 1),
        "flagger": ([14], 1),
        "gandalf": ([19], 1),
        "prometheus-rate": ([12, 27], 4),
        "multinomial-anytime": ([7], 1),
        "ewma-3-sigma": ([29], 1),
        "isolation-forest": ([64], 1),
    },
    "slow": {
        "gandalf": ([789], 1),
        "prometheus-rate": ([307, 362], 28),
        "multinomial-anytime": ([380], 1),
        "ewma-3-sigma": ([24, 289], 30),
        "isolation-forest": ([254, 289], 44),
    },
    "storm": {
        "crashlytics-velocity": ([7], 1),
        "play-vitals": ([1199, 1199], 3),
        "sentry-crash-rate": ([4], 1),
        "kayenta-mann-whitney": ([59], 1),
        "argo-rollouts": ([19], 1),
        "flagger": ([5], 1),
        "gandalf": ([9], 1),
        "prometheus-rate": ([5], 1),
        "multinomial-anytime": ([4], 1),
        "ewma-3-sigma": ([4], 1),
        "isolation-forest": ([64], 1),
    },
}

every_peer = pytest.mark.parametrize("make", PEERS, ids=names())
every_stream = pytest.mark.parametrize("stream", STREAMS)


@pytest.mark.parametrize("module", MODULES)
def test_examples_hold(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"detectors.backtest.peers.{module}")).failed == 0


@cache
def _alarms(name: str, stream: str) -> tuple[Alarm, ...]:
    return tuple(peer(name).watch(STREAMS[stream], BEGAN_MS))


@every_stream
@pytest.mark.parametrize("name", names())
def test_alarms_are_at_golden_minutes(stream: str, name: str) -> None:
    """A change of these numbers is a change of a peer's rule and wants a reason."""
    found = indices(STREAMS[stream], [alarm.at_ms for alarm in _alarms(name, stream)])
    assert (found[:2], len(found)) == GOLDEN[stream].get(name, ([], 0))


@every_stream
@pytest.mark.parametrize("name", names())
def test_alarms_are_in_order_and_say_why(stream: str, name: str) -> None:
    alarms = _alarms(name, stream)
    assert [alarm.at_ms for alarm in alarms] == sorted(alarm.at_ms for alarm in alarms)
    for alarm in alarms:
        assert alarm.decision in ("hold", "kill")
        assert re.search(r"\d", alarm.sentence), alarm.sentence


@every_peer
def test_the_same_minutes_give_the_same_alarms(make: Callable[[], Peer]) -> None:
    """Also from a peer that has watched another stream before."""
    one = make()
    one.watch(STREAMS["slow"][:300], BEGAN_MS)
    assert tuple(one.watch(list(STREAMS["storm"]), BEGAN_MS)) == _alarms(one.name, "storm")


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("stream", "cut"), [("sudden", 61), ("sudden", 301), ("storm", 733), ("slow", 1201)])
def test_alarms_on_a_prefix_are_a_prefix_of_the_alarms(name: str, stream: str, cut: int) -> None:
    minutes = STREAMS[stream]
    end_ms = minutes[cut - 1].at_ms
    early = [alarm for alarm in _alarms(name, stream) if alarm.at_ms <= end_ms]
    assert peer(name).watch(minutes[:cut], BEGAN_MS) == early


@pytest.mark.parametrize("name", names())
def test_the_storm_is_loud_enough_to_test_with(name: str) -> None:
    assert _alarms(name, "storm")


@every_peer
@pytest.mark.parametrize(
    "minutes",
    [
        [],
        [minute(index, exposed=0, control=0, active=(0, 0)) for index in range(1500)],
        [minute(index, exposed=0, active=(0, 1800), crashes=(0, 3)) for index in range(1500)],
        [minute(index) for index in range(1500)],
    ],
    ids=["no minutes", "nobody there", "nobody exposed", "no crashes"],
)
def test_no_data_is_no_alarm(make: Callable[[], Peer], minutes: list[Minute]) -> None:
    assert make().watch(minutes, BEGAN_MS) == []


@every_peer
def test_minutes_before_the_beginning_do_not_count(make: Callable[[], Peer]) -> None:
    storm = STREAMS["storm"][:900]
    late_ms = storm[599].at_ms
    assert make().watch(storm, late_ms) == make().watch(storm[600:], late_ms)


@every_peer
def test_minutes_out_of_order_are_refused(make: Callable[[], Peer]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        make().watch([minute(1), minute(0)], BEGAN_MS)
    with pytest.raises(ValueError, match="ascending"):
        make().watch([minute(1), minute(1)], BEGAN_MS)


@every_peer
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), missing=st.sets(st.integers(0, 89), max_size=40), cut=st.integers(0, 90))
def test_gaps_and_any_counts_are_borne(make: Callable[[], Peer], seed: int, missing: set[int], cut: int) -> None:
    """Minutes may be missing, crashes may outnumber sessions and devices; the future is still unseen."""
    whole = drawn(seed, count=90, ratio=lambda index: 50.0, background=0.05, devices=300, share=lambda index: 0.3)
    minutes = [one for index, one in enumerate(whole) if index not in missing]
    alarms = make().watch(minutes, BEGAN_MS)
    part = [one for one in minutes if one.at_ms <= BEGAN_MS + cut * MINUTE_MS]
    early = [alarm for alarm in alarms if alarm.at_ms <= BEGAN_MS + cut * MINUTE_MS]
    assert make().watch(part, BEGAN_MS) == early
    assert {alarm.at_ms for alarm in alarms} <= {one.at_ms for one in minutes}


def test_names_are_unique_and_found() -> None:
    assert len(set(names())) == len(PEERS) == 11
    assert [peer(name).name for name in names()] == names()
    with pytest.raises(KeyError, match=r"no peer 'kayenta'.*kayenta-mann-whitney"):
        peer("kayenta")


@every_peer
def test_the_readme_tells_each_peers_rule_source_and_blind_spot(make: Callable[[], Peer]) -> None:
    one = make()
    rows = [row for row in (FOLDER / "README.md").read_text().splitlines() if row.startswith(f"| `{one.name}` |")]
    assert len(rows) == 1
    for text in (one.rule, one.source, one.blind_to):
        assert f"| {text} |" in rows[0]
