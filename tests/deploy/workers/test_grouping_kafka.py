"""Grouping workers on a real broker count exactly what a plain model counts, whatever happens to them."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.kafka.broker import LocalKafka, LocalKafkaCluster
from ingest.deadletter import DeadLetter
from ingest.log.interface import Entry, TopicPartition
from support.grouping_group import SESSION_MS, Group, group_on
from support.kafka import lane_on
from support.streams import eventually
from support.world import World

pytestmark = [pytest.mark.fault, pytest.mark.slow]

PARTITIONS = 4
PAUSE_SECONDS = SESSION_MS / 1000 + 1.5


@pytest.fixture
def group(kafka: LocalKafkaCluster, tmp_path: Path) -> Iterator[Group]:
    with (
        lane_on(kafka, device_partitions=PARTITIONS, prefix="grouping") as topics,
        group_on(kafka, topics, tmp_path) as group,
    ):
        yield group


def owners(group: Group) -> dict[str, set[str]]:
    """Return the shares of each worker by the newest words."""
    found: dict[str, set[str]] = {}
    for word in group.words().values():
        found.setdefault(word.worker, set()).add(word.owner)
    return found


def test_counts_are_exact_through_sigkill(group: Group) -> None:
    """Killed at random moments under load, and started again."""
    generator = random.Random(19)
    worker = group.worker("a")
    group.feed(25, seconds=2)
    # On a busy machine a worker may take longer to start than all the kills below: the first life has to count.
    eventually(lambda: len(group.told().generations) == PARTITIONS, 60)
    for _ in range(3):
        group.feed(40, seconds=generator.uniform(0.5, 2.5))
        worker.kill()
        worker = group.worker("a")
    group.feed(30, seconds=1)
    told = group.check_exact()
    assert sum(map(len, told.generations.values())) >= 2 * PARTITIONS, "shares were loaded anew"
    assert group.log.bounds(TopicPartition(group.topics.name("fleet"), 0))[1] > 10, "state was written meanwhile"
    worker.leave()
    assert all(word.leaving for word in group.words().values())


def test_a_killed_worker_that_comes_back_does_not_wait_for_its_old_session(group: Group) -> None:
    worker = group.worker("a", kafka_session_ms=60_000)
    other = group.worker("b", kafka_session_ms=60_000)
    group.feed(40, seconds=2)
    eventually(lambda: {name: len(shares) for name, shares in owners(group).items()} == {"a": 2, "b": 2}, 20)
    worker.kill()
    group.feed(60, seconds=1)
    worker = group.worker("a", kafka_session_ms=60_000)
    group.wait_counted(15)
    group.check_exact()
    worker.leave()
    other.leave()


def test_counts_are_exact_while_workers_join_leave_and_die_under_load(group: Group) -> None:
    first = group.worker("a")
    group.feed(40, seconds=2)
    second = group.worker("b")
    group.feed(40, seconds=2)
    eventually(lambda: {name: len(shares) for name, shares in owners(group).items()} == {"a": 2, "b": 2}, 20)
    kept = {
        place: step for place, step in group.told().generations.items() if f"grouping/{place}" in owners(group)["a"]
    }
    assert all(len(generations) == 1 for generations in kept.values()), "what stays is not loaded anew"
    group.feed(30, seconds=1)
    second.leave()
    group.feed(40, seconds=2)
    third = group.worker("c")
    group.feed(40, seconds=3)
    first.kill()
    group.feed(30, seconds=2)
    group.check_exact()
    eventually(lambda: set(owners(group)) == {"c"}, 20)
    third.leave()


def test_a_worker_paused_beyond_its_session_corrupts_nothing(group: Group) -> None:
    """What it still says when it goes on is told from its successor's by the generation."""
    zombie = group.worker("zombie")
    group.feed(40, seconds=3)
    eventually(lambda: set(owners(group)) == {"zombie"}, 20)
    zombie.pause()
    other = group.worker("other")
    group.feed(40, seconds=PAUSE_SECONDS)
    eventually(lambda: set(owners(group)) == {"other"}, 20)
    zombie.go_on()
    group.feed(40, seconds=2)
    eventually(lambda: len(owners(group)) == 2, 20)
    other.kill()
    group.feed(20, seconds=1)
    group.check_exact()
    eventually(lambda: set(owners(group)) == {"zombie"}, 20)
    zombie.leave()


def test_a_poison_record_is_dead_lettered_and_the_rest_is_counted(group: Group) -> None:
    worker = group.worker("a")
    group.feed(30, seconds=1)
    activity, crashes = group.topics.name("activity"), group.topics.name("crashes")
    world, now_ms = World(group.topics), group.history.now_ms
    (stranger,) = world.batches("activity", [world.check_in(1, now_ms)], now_ms)
    wrong = (stranger.partition + 1) % PARTITIONS
    places = group.append(
        Entry(activity, 1, None, b"\x00 no such thing"),
        Entry(crashes, 2, None, b'{"kind":"batch","schema":99}'),
        Entry(activity, wrong, None, stranger.value),
    )
    group.feed(60, seconds=2)
    group.check_exact()
    letters = [msgspec.json.decode(record.value or b"", type=DeadLetter) for record in group.read("deadletter", 0)]
    found = {(letter.topic, letter.partition, letter.offset): letter for letter in letters}
    expected = [(activity, 1, places[0]), (crashes, 2, places[1]), (activity, wrong, places[2])]
    assert set(found) == set(expected)
    assert [str(found[place].reason) for place in expected] == ["unreadable", "unreadable", "wrong_partition"]
    worker.leave()


def test_a_broker_that_dies_and_comes_back_costs_nothing(own_kafka: LocalKafka, tmp_path: Path) -> None:
    """Away for longer than a session: shares keep what they have, and their worker is the same process after."""
    with (
        lane_on(own_kafka, device_partitions=2, prefix="grouping") as topics,
        group_on(own_kafka, topics, tmp_path) as group,
    ):
        worker = group.worker("a")
        group.feed(80, seconds=2)
        own_kafka.kill()
        time.sleep(PAUSE_SECONDS)
        own_kafka.start()
        group.feed(80, seconds=1)
        told = group.check_exact()
        assert all(len(generations) == 1 for generations in told.generations.values()), "nothing was loaded anew"
        worker.leave()
