"""SIGKILL of any process at random moments in an incident: nothing is lost, counts are exact, it ends in a kill.

One series here, twenty in `make chaos`, which says so by CHAOS_SERIES. A series prints when the kill came, beside an
undisturbed run's.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import LocalKafka
from support.chaos import KILLS, SERIES_SECONDS, Killer
from support.incident import Undisturbed, check_same, incident_on
from support.kafka import require_kafka

SERIES = int(os.environ.get("CHAOS_SERIES", "1"))
SECONDS_MAX = 400


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    """Yield a broker that may be killed."""
    require_kafka()
    with LocalKafka() as kafka:
        yield kafka


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.parametrize("seed", range(SERIES))
def test_an_incident_survives_the_death_of_any_process(
    seed: int, broker: LocalKafka, undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gateway, two workers, signals and the broker, five of whom are killed on the way."""
    with incident_on(broker, undisturbed, tmp_path) as one:
        with Killer(seed, one.many, broker) as killer:
            one.run(seconds=SERIES_SECONDS)
        left = one.left()
    with capsys.disabled():
        killed = ", ".join(f"{name} at {at:.0f} s" for name, at in killer.series.killed)
        slowest = max(killer.series.recoveries, default=0.0)
        one.say(f"series {seed} ({killed}; back within {slowest:.1f} s)", undisturbed)
    assert len(killer.series.killed) == KILLS, "the incident was over before all kills: nothing was tested"
    check_same(undisturbed.left, left)
