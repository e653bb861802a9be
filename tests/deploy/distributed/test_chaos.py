"""SIGKILL of any process at random moments in an incident: nothing is lost, counts are exact, the kill is raised.

Three series here, twenty in `make chaos`, which says so by CHAOS_SERIES. A series prints when the kill came, beside an
undisturbed run's.
"""

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.embedded import running
from deploy.kafka.broker import LocalKafka
from deploy.replay.remote import connected, fetch_keys
from ingest.clock import WallClock
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.chaos import DEVICES, KILLS, Killer, Series, incident, replay, told, totals
from support.distributed import running_distributed
from support.kafka import delete_topics, kafka_settings, require_kafka, unique_lane
from support.sameness import Left, left_in
from support.system import cordon

PARTITIONS = 4
ROLES = ("report", "rollout", "drive", "operator")
SERIES = int(os.environ.get("CHAOS_SERIES", "3"))
SECONDS_MAX = 400


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The embedded Cordon's run of the incident, and its data folder."""

    left: Left
    data: Path


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    """Yield a broker that may be killed."""
    require_kafka()
    with LocalKafka() as kafka:
        yield kafka


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run the incident through the embedded Cordon, whose kill switch nobody obeys."""
    folder = tmp_path_factory.mktemp("undisturbed")
    settings = Settings(
        data_dir=str(folder),
        lane="replay",
        store=False,
        linger_ms=0,
        device_partitions=PARTITIONS,
        reports_port=0,
        streams_port=0,
        query_port=0,
    )
    with running(settings) as one:
        log = one.embedded.parts.log
        # Upkeep would compact away what is to be compared.
        one.embedded.parts.log.maintain = lambda: None  # type: ignore[method-assign]  # for this test's sake
        with connected(
            incident(),
            reports_url=one.reports_url,
            streams_url=one.streams_url,
            token=one.token(*ROLES),
            lane="replay",
            keys=fetch_keys(one.streams_url),
            devices=DEVICES,
            kill_switch=False,
        ) as run:
            result = run.run()
        return Undisturbed(left_in(log, Topics("replay", PARTITIONS), result), folder)


def disturbed(seed: int, kafka: LocalKafka, folder: Path, pseudonym_key: Path) -> tuple[Series, Left]:
    """Run the incident through gateway, two workers and signals, five of whom are killed on the way."""
    folder.mkdir()
    shutil.copy(pseudonym_key, folder)
    options = [part for role in ROLES for part in ("--role", role)]
    token = cordon("token", "add", "replay", "--tenant", "*", *options, "--data", folder).stdout.strip()
    topics = Topics(unique_lane("chaos"), PARTITIONS, keyed_partitions=2)
    series = Series()
    try:
        with (
            running_distributed(
                folder, kafka.bootstrap, workers=2, lane=topics.lane, device_partitions=PARTITIONS, keyed_partitions=2
            ) as many,
            Killer(seed, many, kafka, series),
        ):
            series.result = replay(many, token, topics.lane)
        log = KafkaLog(
            connection_of(kafka_settings(kafka, topics)),
            topic_specs(topics),
            WallClock(),
            Metrics(),
            lane=topics.lane,
            client="test",
        )
        try:
            return series, left_in(log, topics, series.result)
        finally:
            log.close()
    finally:
        delete_topics(kafka, topic_specs(topics))


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.parametrize("seed", range(SERIES))
def test_an_incident_survives_the_death_of_any_process(
    seed: int, broker: LocalKafka, undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = undisturbed.left
    series, left = disturbed(seed, broker, tmp_path / "data", undisturbed.data / "pseudonym.key")
    assert series.result is not None
    with capsys.disabled():
        sys.stdout.write(_sentence(seed, series, calm))
    assert len(series.killed) == KILLS, "the incident was over before all kills: nothing was tested"
    # Nothing acknowledged is lost, and counts are exact.
    assert series.result.accepted == calm.result.accepted
    assert totals(left.cohorts) == totals(calm.cohorts)
    assert told(left.cohorts) == told(calm.cohorts)
    # The kill is raised: the same rollout, by numbers without holes or repeats.
    assert left.events.keys() == calm.events.keys()
    for rollout, events in left.events.items():
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["state"] == calm.events[rollout][-1]["state"]
        kills = list(itertools.filterfalse(lambda event: event["state"] != "killed", events))
        assert len(kills) == sum(event["state"] == "killed" for event in calm.events[rollout])
    assert any(event["state"] == "killed" for events in left.events.values() for event in events)


def _sentence(seed: int, series: Series, calm: Left) -> str:
    assert series.result is not None
    killed = ", ".join(f"{name} at {at:.0f} s" for name, at in series.killed)
    slowest = max(series.recoveries, default=0.0)
    return (
        f"\nseries {seed}: {killed}; back within {slowest:.1f} s; first crash to kill "
        f"{series.result.seconds_first_crash_to_kill} s of event time, undisturbed "
        f"{calm.result.seconds_first_crash_to_kill} s; {series.result.wall_seconds:.0f} s in all\n"
    )
