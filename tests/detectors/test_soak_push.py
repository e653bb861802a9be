"""Planning a push: what it promises of loss is kept in simulated pushes, by the evidence that is really used."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.policy import load
from detectors.sequential import Floats, RateRatio
from detectors.soak_policy import watches
from detectors.soak_push import Push, PushHarm, per_second_max, stopped
from detectors.soak_question import SoakError
from detectors.tenants import ROWS, Flags, TenantRatio

WATCHES = watches(load().default, 8)
HOLD, KILL = WATCHES["hold"], WATCHES["kill"]
HARM = PushHarm(probability=1.0, reported=0.25, crash_seconds=180.0, stop_seconds=30.0)
pushes = st.builds(
    Push,
    devices=st.integers(100, 200_000),
    share=st.floats(0.1, 1.0),
    per_second=st.floats(0.01, 1000.0),
)
harms = st.builds(
    PushHarm,
    probability=st.floats(0.01, 1.0),
    reported=st.floats(0.1, 1.0),
    crash_seconds=st.floats(0.0, 600.0),
    stop_seconds=st.floats(0.0, 120.0),
)


def simulated_losses(push: Push, harm: PushHarm, level: str, runs: int = 200, background: float = 0.001) -> list[float]:
    """Return the loss in pushes with crashes and tenants at random and a background, by the evidence that is used."""
    rng, losses = np.random.default_rng(20240719), []
    for _ in range(runs):
        began = np.arange(int(push.pushed)) / push.per_second
        crashes = rng.random(len(began)) < harm.probability
        heard = np.sort(began[crashes & (rng.random(len(began)) < harm.reported)] + harm.crash_seconds)
        others = np.sort(rng.uniform(0.0, heard[-1], rng.poisson(background * push.devices * heard[-1] / 86_400.0)))
        at = np.concatenate([heard, others])
        arms = np.repeat([True, False], [len(heard), len(others)])
        order = np.argsort(at, kind="stable")[:80]
        at, exposed = at[order], arms[order]
        share = np.clip(np.minimum(push.pushed, at * push.per_second) / push.devices, 0.02, 1.0 - 1e-6)
        stop = _stop_seconds(level, at, exposed, share, rng)
        losses.append(float(np.count_nonzero(crashes & (began <= stop + harm.stop_seconds))))
    return losses


def _stop_seconds(level: str, at: Floats, exposed: Flags, share: Floats, rng: np.random.Generator) -> float:
    if level == "hold":
        detector = RateRatio(HOLD.tolerated_ratio)
        paths = [detector.update(exposed[i : i + 1], share[i : i + 1]) for i in range(len(at))]
        enough = np.array(paths) >= HOLD.log_needed
    else:
        tenants = TenantRatio(KILL.tolerated_ratio)
        groups = rng.integers(0, KILL.tenants, len(at))
        path = tenants.update(exposed, np.repeat(share[:, None], ROWS, axis=1), groups)
        enough = (path.min(axis=1) >= KILL.log_needed) & (np.cumsum(exposed) >= KILL.devices_least)
    return float(at[int(np.argmax(enough))]) if enough.any() else math.inf


@pytest.mark.parametrize(("level", "more"), [("hold", 18), ("kill", 60)])
@pytest.mark.parametrize(
    ("devices", "per_second", "probability"),
    [(6000, 1.0, 1.0), (6000, 1.0, 0.2), (60_000, 20.0, 1.0), (60_000, 2.0, 0.1)],
)
def test_simulated_pushes_lose_no_more_than_promised_and_not_much_less(
    level: str, more: int, devices: int, per_second: float, probability: float
) -> None:
    """Of 200 pushes at a certainty of 95 % at most 10 are expected to lose more, 18 come in one of a hundred tests.

    Of a kill not so much is promised: tenants crash at random, and not in turn.
    """
    push = Push(devices=devices, per_second=per_second)
    harm = msgspec.structs.replace(HARM, probability=probability)
    promised = stopped(push, harm, WATCHES[level]).lost
    losses = simulated_losses(push, harm, level)
    assert sum(loss > promised for loss in losses) <= more
    assert float(np.median(losses)) >= 0.4 * promised


@given(push=pushes, harm=harms)
@settings(max_examples=60, deadline=None)
def test_a_faster_push_never_loses_less(push: Push, harm: PushHarm) -> None:
    slower = stopped(push, harm, HOLD)
    faster = stopped(msgspec.structs.replace(push, per_second=2.0 * push.per_second), harm, HOLD)
    assert faster.lost >= slower.lost - 1e-6
    assert slower.lost <= push.pushed * harm.probability + 1e-6


@given(push=pushes, harm=harms, loss_max=st.floats(1.0, 5000.0))
@settings(max_examples=40, deadline=None)
def test_the_highest_speed_is_within_the_bound_and_a_little_more_is_not(
    push: Push, harm: PushHarm, loss_max: float
) -> None:
    found = per_second_max(push, harm, HOLD, loss_max)

    def lost(per_second: float) -> float:
        return stopped(msgspec.structs.replace(push, per_second=per_second), harm, HOLD).lost

    if math.isinf(found):
        assert lost(1e7) <= loss_max
        return
    if found:
        assert lost(found) <= loss_max
    assert lost(max(found, 1e-4) * 1.01) > loss_max


def test_a_ring_that_is_pushed_at_once_is_lost_before_anything_can_be_decided() -> None:
    found = stopped(Push(devices=600), HARM, HOLD)
    assert (found.crashes, found.seconds, found.lost) == (None, None, 600.0)


def test_a_held_out_part_lets_evidence_come_even_of_a_push_at_once() -> None:
    found = stopped(Push(devices=6000, share=0.5), HARM, HOLD)
    assert found.crashes is not None
    assert (found.seconds, found.lost) == (210.0, 3000.0)


def test_what_is_no_push_and_no_harm_is_refused() -> None:
    with pytest.raises(SoakError, match="a push of -1 devices a second"):
        Push(devices=10, per_second=-1.0)
    with pytest.raises(SoakError, match=r"a share of 1\.5"):
        Push(devices=10, share=1.5)
    with pytest.raises(SoakError, match="a ring of 0 devices"):
        Push(devices=0)
    with pytest.raises(SoakError, match="the crash probability is 2"):
        PushHarm(probability=2.0, crash_seconds=1.0, stop_seconds=1.0)
    with pytest.raises(SoakError, match="0 of the crashes are reported"):
        PushHarm(probability=1.0, reported=0.0, crash_seconds=1.0, stop_seconds=1.0)
    with pytest.raises(SoakError, match="-1 s until a crash"):
        PushHarm(probability=1.0, crash_seconds=-1.0, stop_seconds=1.0)
