"""What a lane's topics should be like, and what is done about those that are not; no broker is asked."""

from dataclasses import replace

import pytest

from ingest.gateway.records import RECORD_BYTES_MAX
from ingest.log.kafka.topics_plan import MESSAGE_BYTES_MAX, ExistingTopic, Kind, WantedTopic, plan, wanted
from ingest.log.specs import topic_specs
from ingest.topics import TOPICS, Topics

LANE = Topics("plan-1", device_partitions=4, keyed_partitions=2)
HOUR_MS = 3_600_000


def topics() -> dict[str, WantedTopic]:
    return {topic.name: topic for topic in wanted(topic_specs(LANE), replication=3, min_isr=2)}


def as_wanted() -> dict[str, ExistingTopic]:
    return {name: ExistingTopic(topic.partitions, topic.replication, topic.configs) for name, topic in topics().items()}


def of(word: str) -> WantedTopic:
    return topics()[LANE.name(word)]


def test_every_declared_topic_is_wanted_with_its_partitions() -> None:
    assert set(topics()) == {LANE.name(topic.word) for topic in TOPICS}
    assert [of(word).partitions for word in ("crashes", "verdicts", "fences")] == [4, 2, 1]


def test_every_topic_is_durable_and_timed_by_the_brokers() -> None:
    for topic in topics().values():
        assert topic.replication == 3
        assert topic.configs["min.insync.replicas"] == "2"
        assert topic.configs["unclean.leader.election.enable"] == "false"
        assert topic.configs["message.timestamp.type"] == "LogAppendTime"


def test_the_largest_record_fits_into_a_message_and_a_message_into_a_segment() -> None:
    for topic in topics().values():
        assert RECORD_BYTES_MAX < MESSAGE_BYTES_MAX == int(topic.configs["max.message.bytes"])
        assert int(topic.configs["segment.bytes"]) > MESSAGE_BYTES_MAX


@pytest.mark.parametrize("word", [topic.word for topic in TOPICS if topic.compacted])
def test_state_is_compacted_soon_and_never_aged(word: str) -> None:
    configs = of(word).configs
    assert configs["cleanup.policy"] == "compact"
    assert int(configs["segment.ms"]) <= 600_000
    assert "retention.ms" not in configs


def test_aged_topics_keep_their_hours_and_bytes() -> None:
    crashes = of("crashes").configs
    assert crashes["cleanup.policy"] == "delete"
    assert int(crashes["retention.ms"]) == 72 * HOUR_MS
    assert int(crashes["retention.bytes"]) == (8 << 30) // 4
    assert int(crashes["segment.ms"]) <= 72 * HOUR_MS // 10


def test_kill_switch_events_stay_for_ever() -> None:
    configs = of("killswitch").configs
    assert (configs["cleanup.policy"], configs["retention.ms"], configs["retention.bytes"]) == ("delete", "-1", "-1")


def test_nothing_is_to_be_done_where_all_is_as_wanted() -> None:
    assert plan(list(topics().values()), as_wanted(), brokers=3) == []


def test_a_missing_topic_is_created() -> None:
    there = as_wanted()
    del there[LANE.name("crashes")]
    (change,) = plan(list(topics().values()), there, brokers=3)
    assert (change.kind, change.topic) == (Kind.CREATE, LANE.name("crashes"))
    assert change.text == "4 partitions, 3 replicas, delete"


def test_a_differing_configuration_is_set_and_others_are_left_alone() -> None:
    there = as_wanted()
    name = LANE.name("crashes")
    by_hand = {**there[name].configs, "retention.ms": "1000", "flush.ms": "7"}
    there[name] = replace(there[name], configs=by_hand)
    (change,) = plan(list(topics().values()), there, brokers=3)
    assert (change.kind, change.topic) == (Kind.ALTER, name)
    assert change.configs == {"retention.ms": str(72 * HOUR_MS)}
    assert change.text == f"retention.ms 1000 -> {72 * HOUR_MS}"


@pytest.mark.parametrize("partitions", [3, 5])
def test_a_partition_count_is_never_changed(partitions: int) -> None:
    there = as_wanted()
    name = LANE.name("activity")
    there[name] = replace(there[name], partitions=partitions)
    (change,) = plan(list(topics().values()), there, brokers=3)
    assert (change.kind, change.topic) == (Kind.REFUSED, name)
    assert f"has {partitions} partitions and should have 4" in change.text
    assert "device_partitions" in change.text


def test_another_replication_is_a_persons_to_change() -> None:
    there = as_wanted()
    name = LANE.name("activity")
    there[name] = replace(there[name], replication=1)
    (change,) = plan(list(topics().values()), there, brokers=3)
    assert change.kind is Kind.REFUSED
    assert "kafka_replication" in change.text


def test_more_replicas_than_brokers_are_refused_before_anything_is_made() -> None:
    changes = plan(list(topics().values()), {}, brokers=2)
    assert {change.kind for change in changes} == {Kind.REFUSED}
    assert "3 replicas need as many brokers, and 2 answered" in changes[0].text
    assert "kafka_replication" in changes[0].text


def test_topics_that_exist_do_not_mind_a_broker_that_is_down() -> None:
    assert plan(list(topics().values()), as_wanted(), brokers=1) == []
