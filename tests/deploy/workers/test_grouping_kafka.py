"""Grouping workers on a real broker count exactly what a plain model counts, whatever happens to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import LocalKafkaCluster
from support.grouping_group import Group, group_on
from support.kafka import lane_on

PARTITIONS = 4


@pytest.fixture
def group(kafka: LocalKafkaCluster, tmp_path: Path) -> Iterator[Group]:
    with (
        lane_on(kafka, device_partitions=PARTITIONS, prefix="grouping") as topics,
        group_on(kafka, topics, tmp_path) as group,
    ):
        yield group


def test_a_worker_counts_what_was_there_and_what_comes(group: Group) -> None:
    group.feed(40)
    group.worker("a")
    group.feed(60, seconds=2)
    told = group.check_exact()
    assert set(told.generations) == set(range(PARTITIONS))
