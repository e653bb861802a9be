"""Kafka is away for three minutes in an incident: what drains from the spool is late, and never false evidence.

In-process, like the test of late activity: grouping, detection and the kill switch on a log in memory, fed by a real
spool in the order in which a gateway drains it.
"""

import random
from pathlib import Path

import pytest

from detectors.verdict import DecisionWord
from ingest.clock import DrivenClock
from ingest.events import Report
from ingest.gateway.spool.store import CRASHES, Spool
from ingest.grouping.partition import INTERVALS_MAX
from ingest.log.interface import Entry
from ingest.rollouts import Bound
from signals.events import SwitchState
from support.system_late import Chain
from support.world import NEW, T0, World

SECOND = 1000
# Ticks four times a second, as gateways write them, would only take longer: but one test needs more of them than
# grouping reads ahead.
STEP_MS = 1000
DEVICES = 400
START_MS = T0 + 10 * SECOND
AWAY_FROM_MS = START_MS + 4 * SECOND
AWAY_TO_MS = AWAY_FROM_MS + 180 * SECOND
END_MS = AWAY_TO_MS + 10 * SECOND


def flushes(world: World, *, bad: bool, seed: int, step_ms: int = STEP_MS) -> list[tuple[int, list[Entry]]]:
    """Return what the gateway writes: a rollout to nine tenths of the devices within four minutes, crashes, and ticks.

    A bad update crashes a third of those that take it, some seconds after; a good one none, though machines crash, with
    or without it, and their reports name the version that they have.
    """
    rng, devices = random.Random(seed), range(DEVICES)
    offers = {device: START_MS + rng.randrange(240 * SECOND) for device in rng.sample(devices, len(devices) * 9 // 10)}
    if bad:
        crashes = {device: at_ms + rng.randrange(2000, 9000) for device, at_ms in offers.items() if rng.random() < 0.3}
    else:
        crashes = {device: START_MS + rng.randrange(240 * SECOND) for device in rng.sample(devices, len(devices) // 8)}
    found = []
    for at_ms in range(START_MS, END_MS, step_ms):
        since_ms = at_ms - step_ms
        activity: list[Report] = [world.offered(d, offers[d]) for d in devices if since_ms <= offers.get(d, 0) < at_ms]
        struck = [d for d in devices if since_ms <= crashes.get(d, 0) < at_ms]
        bsods: list[Report] = [
            world.bsod(d, crashes[d], NEW if offers.get(d, END_MS) < crashes[d] else None) for d in struck
        ]
        entries = [*world.batches("activity", activity, at_ms), *world.batches("crashes", bsods, at_ms)]
        found.append((at_ms, [*entries, *world.ticks(at_ms)]))
    return found


def greet(chain: Chain) -> None:
    """Let all devices say that they have the old version, and declare the rollout."""
    chain.append(chain.world.batches("activity", [chain.world.check_in(d, T0) for d in range(DEVICES)], T0))
    chain.append(chain.world.ticks(T0 + SECOND))
    chain.declare(Bound.OFFERED)


def play(chain: Chain, spool: Spool, flushed: list[tuple[int, list[Entry]]]) -> dict[str, list[DecisionWord]]:
    """Let the gateway be without Kafka for three minutes, then drain; return the decisions of each phase."""
    said: dict[str, list[DecisionWord]] = {"before": [], "away": [], "crashes": [], "rest": [], "after": []}
    for at_ms, entries in flushed:
        chain.clock.drive_to(at_ms)
        if at_ms >= AWAY_TO_MS and not spool.empty:
            drain(chain, spool, said)
        phase = "before" if at_ms < AWAY_FROM_MS else "away" if at_ms < AWAY_TO_MS else "after"
        if phase == "away":
            spool.put(entries)
        else:
            chain.append(entries)
        said[phase].append(chain.verdict().decision)
    return said


def drain(chain: Chain, spool: Spool, said: dict[str, list[DecisionWord]]) -> None:
    """Append what the spool holds in its order, in small parts, with the stages at work between them."""
    while (taken := spool.take(little=True)) is not None:
        chain.append(taken.entries)
        spool.done(taken)
        said["crashes" if taken.queue == CRASHES else "rest"].append(chain.verdict().decision)


def opened(folder: Path, chain: Chain) -> Spool:
    return Spool(folder, 64 << 20, chain.topics, DrivenClock(T0))


@pytest.mark.slow
def test_a_bad_rollout_is_not_killed_by_crashes_read_ahead_but_once_the_activity_is_drained(tmp_path: Path) -> None:
    chain = Chain()
    greet(chain)
    spool = opened(tmp_path, chain)
    said = play(chain, spool, flushes(chain.world, bad=True, seed=1, step_ms=250))
    assert len(said["crashes"]) > INTERVALS_MAX, "crashes came first, and more than grouping reads ahead"
    assert DecisionWord.KILL not in said["before"] + said["away"] + said["crashes"]
    assert said["crashes"][-1] is DecisionWord.HOLD
    assert DecisionWord.KILL in said["rest"]
    assert chain.switches()[-1].state is SwitchState.KILLED
    spool.close()


@pytest.mark.slow
def test_a_drained_spool_gives_the_evidence_that_a_log_in_time_gives(tmp_path: Path) -> None:
    """The ticks kept their times, so the drained past is cut, counted and scored as it would have been."""
    verdicts = []
    for away in (True, False):
        chain = Chain()
        greet(chain)
        spool = opened(tmp_path / str(away), chain)
        series = flushes(chain.world, bad=True, seed=1)
        if away:
            play(chain, spool, series)
        else:
            for at_ms, entries in series:
                chain.clock.drive_to(at_ms)
                chain.append(entries)
        verdicts.append(chain.verdict())
        spool.close()
    late, in_time = verdicts
    assert late.evidence == in_time.evidence
    assert (late.verdict, late.decision) == (in_time.verdict, in_time.decision)


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_rollout_is_never_killed_by_a_drained_spool(tmp_path: Path, seed: int) -> None:
    chain = Chain()
    greet(chain)
    spool = opened(tmp_path, chain)
    said = play(chain, spool, flushes(chain.world, bad=False, seed=seed))
    assert DecisionWord.KILL not in [word for words in said.values() for word in words]
    assert chain.verdict().decision is not DecisionWord.HOLD
    spool.close()
