"""`cordon topics` against a real broker: apply makes diff content, whatever was there before."""

import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from deploy.cli.main import main
from deploy.kafka.broker import LocalKafka
from ingest.log.kafka.topics import apply, differences, wanted
from ingest.log.specs import topic_specs
from ingest.topics import TOPICS, Topics
from support.kafka import delete_topics, unique_lane


@pytest.fixture
def lane(kafka: LocalKafka) -> Iterator[Topics]:
    """Return a lane whose topics don't exist yet; what is made of them is deleted again."""
    topics = Topics(unique_lane("cli"), device_partitions=2, keyed_partitions=1)
    yield topics
    delete_topics(kafka, topic_specs(topics))


@pytest.fixture
def admin(kafka: LocalKafka) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    yield client
    client.close()


def run(kafka: LocalKafka, lane: Topics, *arguments: str, **more: str) -> Result:
    environment = {
        "CORDON_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "CORDON_KAFKA_REPLICATION": "1",
        "CORDON_KAFKA_MIN_ISR": "1",
        "CORDON_KAFKA_TIMEOUT_MS": "20000",
        "CORDON_DEVICE_PARTITIONS": str(lane.device_partitions),
        "CORDON_LANE": lane.lane,
        **more,
    }
    return CliRunner().invoke(main, ["topics", *arguments], env=environment)


def test_apply_makes_what_diff_misses_and_may_be_repeated(kafka: LocalKafka, lane: Topics) -> None:
    missing = run(kafka, lane, "diff")
    assert missing.exit_code == 1
    assert missing.output.count("create ") == len(TOPICS)
    applied = run(kafka, lane, "apply")
    assert (applied.exit_code, applied.output.splitlines()[-1]) == (0, f"{len(TOPICS)} topics, {len(TOPICS)} changes")
    assert run(kafka, lane, "diff").output == f"{len(TOPICS)} topics are as they should be\n"
    assert run(kafka, lane, "diff").exit_code == 0
    assert run(kafka, lane, "apply").output == f"{len(TOPICS)} topics, 0 changes\n"


def test_apply_sets_what_was_changed_by_hand(kafka: LocalKafka, lane: Topics, admin: KafkaAdminClient) -> None:
    name = lane.name("fleet")
    by_hand = NewTopic(name, 2, 1, topic_configs={"cleanup.policy": "delete", "flush.ms": "5000"})
    admin.create_topics([by_hand], wait_for_metadata=True)
    assert run(kafka, lane, "apply").exit_code == 0
    assert run(kafka, lane, "diff").exit_code == 0
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    configs = admin.describe_configs([resource])["topic"][name]
    assert configs["cleanup.policy"]["value"] == "compact"
    # Not ours to say: left as it was.
    assert configs["flush.ms"]["value"] == "5000"


def test_another_partition_count_is_refused_and_nothing_is_changed(
    kafka: LocalKafka, lane: Topics, admin: KafkaAdminClient
) -> None:
    admin.create_topics([NewTopic(lane.name("crashes"), 5, 1)], wait_for_metadata=True)
    applied = run(kafka, lane, "apply")
    assert applied.exit_code == 2
    assert "has 5 partitions and should have 2" in applied.output
    assert "nothing was changed" in applied.output
    assert [name for name in admin.list_topics() if lane.lane in name] == [lane.name("crashes")]
    assert run(kafka, lane, "diff").exit_code == 1


def test_more_replicas_than_brokers_name_the_setting(kafka: LocalKafka, lane: Topics) -> None:
    applied = run(kafka, lane, "apply", CORDON_KAFKA_REPLICATION="2")
    assert applied.exit_code == 2
    assert "2 replicas need as many brokers, and 1 answered" in applied.output
    assert "kafka_replication" in applied.output


def test_two_at_once_do_not_disturb_each_other(kafka: LocalKafka, lane: Topics, admin: KafkaAdminClient) -> None:
    specs = wanted(topic_specs(lane), replication=1, min_isr=1)
    errors: list[BaseException] = []

    def one() -> None:
        client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        try:
            apply(client, specs)
        except BaseException as error:
            errors.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert differences(admin, specs) == []


def test_an_absent_kafka_is_an_error_and_no_difference(kafka: LocalKafka) -> None:
    away = Topics("away")
    done = run(kafka, away, "diff", CORDON_KAFKA_BOOTSTRAP="127.0.0.1:1", CORDON_KAFKA_TIMEOUT_MS="700")
    assert done.exit_code == 2
    assert "nothing answers at 127.0.0.1:1 (Connection refused)" in done.output
    assert "kafka_bootstrap" in done.output


def test_settings_that_do_not_fit_are_an_error_and_no_difference(kafka: LocalKafka) -> None:
    away = Topics("away")
    assert run(kafka, away, "diff", CORDON_KAFKA_BOOTSTRAP="").exit_code == 2
    assert run(kafka, away, "diff", "--lane", "No").exit_code == 2
    assert run(kafka, away, "diff", CORDON_KAFKA_REPLICATION="many").exit_code == 2
