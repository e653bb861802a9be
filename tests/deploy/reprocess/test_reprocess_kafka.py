"""Reprocessing on a real broker, beside the live lane: the same verdicts, and no trace in live."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.cli.main import main
from deploy.kafka.broker import LocalKafkaCluster
from detectors.verdict import DecisionWord, Verdict
from ingest.clock import WallClock
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import LIVE_LANE, Topics
from support.kafka import create_topics, delete_topics, kafka_settings, require_kafka, unique_lane
from support.reprocessing import (
    CRASHES_AT,
    END,
    ROLLOUT,
    LiveStages,
    ends_and_commits,
    verdicts_of,
    write_incident,
)
from support.world import T0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Of the log's time for a second of the incident: the log stamps records itself, and partitions must not look blind.
SECONDS_EACH = 0.05


class Passing:
    """Event time of the incident, while the log's own time passes."""

    def pass_to(self, at_ms: int) -> int:
        """Wait a moment, and return the event time."""
        time.sleep(SECONDS_EACH)
        return at_ms


@pytest.fixture
def live(own_kafka: LocalKafkaCluster) -> Iterator[tuple[LocalKafkaCluster, KafkaLog, LiveStages, list[Verdict], int]]:
    """Yield a broker of one's own whose live lane had an incident, what live said of it, and when it ended."""
    require_kafka()
    topics = Topics(LIVE_LANE, 2, 2)
    specs = topic_specs(topics)
    create_topics(own_kafka, specs)
    settings = kafka_settings(own_kafka, topics)
    log = KafkaLog(connection_of(settings), specs, WallClock(), Metrics(), lane=LIVE_LANE, client="live")
    stages = LiveStages(log, topics)
    for _ in write_incident(log, topics, Passing()):
        stages.turn()
    yield own_kafka, log, stages, list(verdicts_of(log, topics)), WallClock().now_ms()
    log.close()
    delete_topics(own_kafka, specs)


def iso(at_ms: int) -> str:
    """Return a time as the command takes it."""
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).isoformat()


def test_it_says_what_live_said_and_touches_nothing(
    live: tuple[LocalKafkaCluster, KafkaLog, LiveStages, list[Verdict], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While live's owners live: the same verdicts, in topics of the lane's own; live's ends, commits, fences stay."""
    kafka, log, stages, said, ended_ms = live
    topics = Topics(LIVE_LANE, 2, 2)
    assert any(verdict.decision is DecisionWord.KILL for verdict in said)
    before = ends_and_commits(log, topics)
    assert sum(commits != [None] * 4 for _, commits in before.values()) >= 2
    lane, found = unique_lane("again"), tmp_path / "found.json"
    for name, value in (
        ("KAFKA_BOOTSTRAP", kafka.bootstrap),
        ("KAFKA_REPLICATION", "1"),
        ("KAFKA_MIN_ISR", "1"),
        ("DEVICE_PARTITIONS", "2"),
        ("KEYED_PARTITIONS", "2"),
    ):
        monkeypatch.setenv(f"CORDON_{name}", value)
    span = ["--from", iso(ended_ms - 3_600_000), "--to", iso(ended_ms)]
    with pytest.raises(SystemExit) as ended:
        main(["reprocess", *span, "--lane", lane, "--json", str(found)])
    assert not ended.value.code
    assert ends_and_commits(log, topics) == before
    for owner in stages.owners:
        log.check(owner.fence)
    # And live's owners go on: only their state moves, as it does every second.
    stages.turn()
    assert list(verdicts_of(log, topics)) == said

    again = Topics(lane, 2, 2, source_lane=LIVE_LANE)
    own = KafkaLog(
        connection_of(kafka_settings(kafka, topics)), topic_specs(again), WallClock(), Metrics(), lane=lane, client="t"
    )
    assert list(verdicts_of(own, again)) == said
    own.close()
    concluded = json.loads(found.read_bytes())
    assert concluded[ROLLOUT]["killed_ms"] == next(v.at_ms for v in said if v.decision is DecisionWord.KILL)
    assert T0 + CRASHES_AT * 1000 < concluded[ROLLOUT]["killed_ms"] < T0 + END * 1000
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    made = {name for name in admin.list_topics() if lane in name}
    admin.close()
    assert again.name("cohorts") in made
    assert f"cordon.{lane}.activity.v1" not in made, "the source's topics are not made again"
