"""The lane's topics on the brokers: looked at, created, set right.

`cordon topics` is its shell; `topics_plan` says what should be. The invariant: nothing is changed at all while
something is for a person to decide.
"""

import time
from collections.abc import Iterable, Sequence

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import TopicAlreadyExistsError, for_code

from ingest.log.kafka.topics_plan import Change, ExistingTopic, Kind, TopicsError, WantedTopic, plan, wanted

__all__ = [
    "Change",
    "ExistingTopic",
    "Kind",
    "TopicsError",
    "WantedTopic",
    "apply",
    "describe",
    "differences",
    "wanted",
]

SHOWN_SECONDS_MAX = 20.0
_LOOK_SECONDS = 0.05


def describe(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, ExistingTopic]:
    """Return those of the named topics that exist, as the brokers describe them.

    Raises:
        KafkaError: the brokers can't tell now.
        TopicsError: we may not read a topic's configuration.
    """
    asked = set(names)
    present = sorted(asked.intersection(admin.list_topics()))
    if not present:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
    configs = admin.describe_configs(resources, config_filter="all").get("topic", {})
    found = {}
    for topic in admin.describe_topics(present):
        name = topic["name"]
        if not configs.get(name):
            raise TopicsError(f"the configuration of topic {name} can't be read: grant DESCRIBE_CONFIGS on it")
        found[name] = ExistingTopic(
            partitions=len(topic["partitions"]),
            replication=min((len(partition["replica_nodes"]) for partition in topic["partitions"]), default=0),
            configs={config: value["value"] for config, value in configs[name].items()},
        )
    return found


def differences(admin: KafkaAdminClient, topics: Sequence[WantedTopic]) -> list[Change]:
    """Return what differs on the brokers now.

    Raises:
        KafkaError: the brokers can't tell now.
        TopicsError: we may not read a topic's configuration.
    """
    brokers = len(admin.describe_cluster()["brokers"])
    return plan(topics, describe(admin, (topic.name for topic in topics)), brokers)


def apply(admin: KafkaAdminClient, topics: Sequence[WantedTopic]) -> list[Change]:
    """Create what is missing, set the configurations that differ, and return what was done once the brokers show it.

    Safe to repeat, and beside another one that does the same.

    Raises:
        TopicsError: a person has to decide about something; or the brokers refused, or don't show it in time.
        KafkaError: the brokers can't tell now.
    """
    by_name = {topic.name: topic for topic in topics}
    deadline = time.monotonic() + SHOWN_SECONDS_MAX
    done: list[Change] = []
    while changes := differences(admin, topics):
        _require_none_refused(changes, done)
        # A broker hears of a change a moment after the controller has made it: what was done is not done again.
        left = [change for change in changes if change not in done]
        _create(admin, [by_name[change.topic] for change in left if change.kind is Kind.CREATE])
        _alter(admin, [change for change in left if change.kind is Kind.ALTER])
        done.extend(left)
        if time.monotonic() > deadline:
            pending = ", ".join(sorted({change.topic for change in changes}))
            raise TopicsError(
                f"the brokers don't show the changes of {pending} yet: look again with `cordon topics diff`"
            )
        time.sleep(_LOOK_SECONDS)
    return done


def _require_none_refused(changes: Sequence[Change], done: Sequence[Change]) -> None:
    refused = [f"{change.topic}: {change.text}" for change in changes if change.kind is Kind.REFUSED]
    if refused:
        before = "nothing was changed" if not done else "somebody else made topics at the same time"
        raise TopicsError("\n".join([f"{before}:", *refused]))


def _create(admin: KafkaAdminClient, topics: Sequence[WantedTopic]) -> None:
    if not topics:
        return
    answer = admin.create_topics(
        [
            NewTopic(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=topic.replication,
                topic_configs=dict(topic.configs),
            )
            for topic in topics
        ],
        raise_errors=False,
    )
    failed = []
    for topic in answer["topics"]:
        error = for_code(topic["error_code"])
        # Somebody else who started at the same moment has made it; the next look compares it like any other.
        if topic["error_code"] and error is not TopicAlreadyExistsError:
            failed.append(f"{topic['name']}: {topic.get('error_message') or error.__name__}")
    if failed:
        raise TopicsError("\n".join(["Kafka refused to create topics:", *failed]))
    # Ready when every partition has a leader.
    admin.wait_for_topics([topic.name for topic in topics])


def _alter(admin: KafkaAdminClient, changes: Sequence[Change]) -> None:
    if not changes:
        return
    resources = [ConfigResource(ConfigResourceType.TOPIC, change.topic, dict(change.configs)) for change in changes]
    results = admin.alter_configs(resources, incremental=True)["topic"]
    failed = [f"{name}: {result}" for name, result in results.items() if result != "OK"]
    if failed:
        raise TopicsError("\n".join(["Kafka refused to change topics:", *failed]))
