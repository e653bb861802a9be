"""The bench of the detectors: what its parts rest on, and how it is asked for them."""

from collections import Counter

import numpy as np
import pytest

from deploy.bench import detectors, detectors_gate, detectors_liar, detectors_stage
from deploy.bench.detectors_safeguards import by_tenant, crossing, draw, raw, twice, with_delays
from detectors.gate_cell import HarmBound
from detectors.gate_trial import passes
from ingest.minutes import offset_seconds
from ingest.topics import Topics
from ingest.windows import step_decoder


def test_a_part_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        detectors.main(["--only", "crashes,magic"])
    assert "no part magic" in capsys.readouterr().err


def test_a_crossing_is_counted_with_the_crash_that_crosses() -> None:
    assert crossing(np.array([0.5, 2.0, 3.0]), 2.0) == 2
    assert crossing(np.array([0.5, 1.0]), 2.0) == 3


def test_each_safeguard_costs_crashes_and_none_gains_any() -> None:
    drawn = draw(100.0, 0.1, 10, 3)
    plain = crossing(raw(drawn, 1.5), np.log(1e6))
    assert plain <= crossing(raw(twice(drawn), 1.5), np.log(1e6))
    assert plain <= crossing(with_delays(drawn, 1.5, 3), np.log(1e6))
    assert plain <= crossing(by_tenant(drawn, 1.5, 0.1), np.log(1e6))


def test_a_flood_costs_something_and_not_everything() -> None:
    """Of the crashes of nine honest tenants, a flood of the tenth's takes a few more."""
    drawn = draw(100.0, 0.1, 9, 4)
    others = drawn._replace(tenant=drawn.tenant + 1)
    without, with_it = (crossing(by_tenant(others, 1.5, 0.1, flood), np.log(1e6)) for flood in (0, 2000))
    assert without < with_it <= without + 8


@pytest.mark.parametrize("tenants", [3, 50])
def test_a_liar_lifts_nothing(tenants: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors_liar, "RUNS", 2)
    monkeypatch.setattr(detectors_liar, "LIES", 100)
    assert detectors_liar.rise(tenants) <= 1e-9


def test_two_that_conspire_do_lift_it() -> None:
    """The bound can fail: with a second liar's crashes the evidence rises far above what the others say."""
    rng = np.random.default_rng(1)
    exposed, group = detectors_liar.honest(rng, 10)
    arms, groups = np.append(exposed, np.ones(60, dtype=bool)), np.append(group, np.arange(60) % 2 * 20)
    lies = detectors_liar.told(arms, groups, np.full(len(arms), detectors_liar.SHARE))
    alone = detectors_liar.told(exposed, group, np.full(len(exposed), detectors_liar.SHARE))
    assert detectors_liar.highest(lies)[0] > detectors_liar.highest(alone)[1] + 10


def test_harm_in_one_cell_is_rarely_passed_where_pooling_does() -> None:
    found = passes(detectors_gate.ring(20.0), HarmBound(ratio=1.5, excess_per_device_day=0.002), 0.05, 3, 1)
    assert found.gate <= 1
    assert found.pooled >= 2


def test_the_load_is_what_grouping_would_say() -> None:
    """Every step of the stage's load decodes, follows on the one before, and the full ones name all 64 cells."""
    topics = Topics(device_partitions=detectors_stage.PARTITIONS)
    load = detectors_stage.Load(4, topics, seed=1)
    begin_ms = 1_721_361_600_250
    full = [[step_decoder.decode(value) for value in load.full(begin_ms + 1000 * second)] for second in range(60)]
    windows = [window for steps in full for step in steps for window in step.windows]
    assert all(len(window.at_risk) == 64 == len(window.heard) for window in windows)
    # In a minute each partition names each of them once, at the second at which its own minute begins.
    named = Counter((window.rollout, second) for second, steps in enumerate(full) for window in steps[0].windows)
    assert named == {(one.rollout, offset_seconds(one.rollout)): 1 for one in load.watched}
    later = [step_decoder.decode(value) for value in load.quarter(begin_ms + 59_250)]
    assert all(step.since_ms == begin_ms + 59_000 for step in later)


def test_a_minute_of_a_few_rollouts_is_measured() -> None:
    cost = detectors_stage.Run(3).cost()
    assert cost.seconds > 0
    assert cost.verdicts >= 3
