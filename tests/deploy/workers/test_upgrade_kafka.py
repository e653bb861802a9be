"""A rolling upgrade on a real broker: workers of the schema before beside new ones, taking each other's partitions."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.kafka.broker import LocalKafkaCluster
from ingest.log.interface import TopicPartition
from support.grouping_group import REPOSITORY, SESSION_MS, Group, Worker, group_on
from support.kafka import kafka_settings, lane_on
from support.streams import eventually

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

PARTITIONS = 4


class OldWorker(Worker):
    """A worker process of the release before; see `support.old_grouping_worker`."""

    def __init__(self, name: str, kafka: LocalKafkaCluster, group: Group, folder: Path) -> None:
        settings = kafka_settings(
            kafka,
            group.topics,
            worker_name=name,
            kafka_session_ms=SESSION_MS,
            devices_max=400_000,
            snapshot_seconds=20,
        )
        self.name, self.log_file = name, folder / f"{name}.log"
        environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
        command = [sys.executable, "-m", "support.old_grouping_worker", msgspec.json.encode(settings).decode()]
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)


@pytest.fixture
def group(kafka: LocalKafkaCluster, tmp_path: Path) -> Iterator[Group]:
    with (
        lane_on(kafka, device_partitions=PARTITIONS, prefix="upgrade") as topics,
        group_on(kafka, topics, tmp_path) as group,
    ):
        yield group


def shares(group: Group, name: str) -> int:
    """Return how many partitions a worker has, by the newest words."""
    return sum(word.worker == name and not word.leaving for word in group.words().values())


def schemas(group: Group) -> set[int]:
    """Return the schemas of the chunks and memories that the log holds now."""
    found = set()
    for partition in range(PARTITIONS):
        for record in group.read("fleet", partition):
            if b"/chunk/" in record.key or b"/memory" in record.key:
                found.add(msgspec.msgpack.decode(record.value)["schema"])
    return found


def test_an_upgrade_rolls_and_is_taken_back_without_a_count_lost(
    kafka: LocalKafkaCluster, group: Group, tmp_path: Path
) -> None:
    """Old, old beside new, new, old again, then new in the newest schema: the model's counts throughout."""
    old = OldWorker("old", kafka, group, tmp_path)
    try:
        group.feed(30, seconds=2)
        group.wait_counted()
        new = group.worker("new")
        eventually(lambda: shares(group, "new") == shares(group, "old") == PARTITIONS // 2, 60)
        group.feed(40, seconds=3)
        group.wait_counted()
        old.leave()
        eventually(lambda: shares(group, "new") == PARTITIONS, 60)
        group.feed(30, seconds=2)
        group.wait_counted()
        # The upgrade is taken back: the old release reads what the new one wrote.
        again = OldWorker("again", kafka, group, tmp_path)
        try:
            eventually(lambda: shares(group, "again") == PARTITIONS // 2, 60)
            new.leave()
            eventually(lambda: shares(group, "again") == PARTITIONS, 60)
            group.feed(30, seconds=2)
            group.check_exact()
            assert schemas(group) == {2}
        finally:
            again.process.kill()
            again.process.wait()
    finally:
        old.process.kill()
        old.process.wait()
    newest = group.worker("newest", newest_schemas=True)
    eventually(lambda: shares(group, "newest") == PARTITIONS, 60)
    group.feed(30, seconds=4)
    told = group.check_exact()
    assert 3 in schemas(group)
    assert all(len(generations) >= 4 for generations in told.generations.values())
    assert group.log.bounds(TopicPartition(group.topics.name("deadletter"), 0))[1] == 0
    newest.leave()
