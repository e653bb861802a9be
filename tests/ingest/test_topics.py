"""Topics: lanes stand apart, and a device's partition is the same for ever."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.topics import LIVE_LANE, TOPICS, Spread, Topics, keyed_partition_of, partition_of, partitions_of

# Golden: these may never change, for a device that moves to another partition is two devices.
DEVICES = [
    ("84ffb1e6bf0d6d0a", 8, 6),
    ("84ffb1e6bf0d6d0a", 64, 38),
    ("0000000000000000", 8, 0),
    ("ffffffff00000000", 64, 63),
    ("00000007ffffffff", 8, 7),
    ("00000008ffffffff", 8, 0),
]
KEYS = [
    # The check value of CRC-32 is 0xCBF43926.
    ("123456789", 1000, 0xCBF43926 % 1000),
    ("crowdstrike/channel-file-291", 8, 5),
    ("r-0123456789abcdef", 8, 0),
    ("r-eb1df869eb45246a", 64, 3),
    ("", 8, 0),
]
LANES = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)


@pytest.mark.parametrize(("pseudonym", "partitions", "partition"), DEVICES)
def test_the_partition_of_a_device_is_the_golden_one(pseudonym: str, partitions: int, partition: int) -> None:
    assert partition_of(pseudonym, partitions) == partition


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(1, 1024))
def test_many_devices_have_the_partitions_that_each_has(devices: list[int], partitions: int) -> None:
    names = [f"{device:016x}" for device in devices]
    assert partitions_of(names, partitions) == [partition_of(name, partitions) for name in names]


@pytest.mark.parametrize(("key", "partitions", "partition"), KEYS)
def test_the_partition_of_a_key_is_the_golden_one(key: str, partitions: int, partition: int) -> None:
    assert keyed_partition_of(key, partitions) == partition


@given(st.integers(0, 2**64 - 1), st.integers(1, 1024))
def test_a_device_has_a_partition_that_exists(device: int, partitions: int) -> None:
    assert 0 <= partition_of(f"{device:016x}", partitions) < partitions


def test_the_live_lane_has_the_plain_names() -> None:
    assert Topics().name("crashes") == "cordon.crashes.v1"
    assert Topics("replay-1").name("crashes") == "cordon.replay-1.crashes.v1"


@given(LANES, LANES)
def test_no_two_lanes_share_a_topic(one: str, other: str) -> None:
    """Rollout systems obey `live` only: a lane whose name were mistaken for another's would kill real rollouts."""
    names = [{Topics(lane).name(topic.word) for topic in TOPICS} for lane in (one, other)]
    assert len(names[0]) == len(TOPICS)
    assert one == other or not names[0] & names[1]
    assert one == LIVE_LANE or not names[0] & {Topics().name(topic.word) for topic in TOPICS}


@pytest.mark.parametrize("lane", ["", "Live", "1st", "a.b", "a_b", "-a", "a" * 32, "live\n", "länge"])
def test_a_name_that_could_be_mistaken_is_refused(lane: str) -> None:
    with pytest.raises(ValueError, match="lower-case letter"):
        Topics(lane)


def test_an_undeclared_topic_is_an_error_that_names_the_declared_ones() -> None:
    with pytest.raises(KeyError, match="crashes"):
        Topics().name("crashs")


def test_topics_are_declared_once_and_never_both_compacted_and_aged() -> None:
    words = [topic.word for topic in TOPICS]
    assert len(words) == len(set(words))
    for topic in TOPICS:
        assert re.fullmatch("[a-z]+", topic.word)
        assert not (topic.compacted and topic.retention_hours is not None), topic.word
        assert topic.doc
        assert topic.key


def test_how_many_partitions_a_topic_has() -> None:
    topics = Topics(device_partitions=64, keyed_partitions=4)
    expected = {Spread.DEVICE: 64, Spread.KEYED: 4, Spread.ONE: 1}
    assert [topics.partitions(topic) for topic in TOPICS] == [expected[topic.spread] for topic in TOPICS]
