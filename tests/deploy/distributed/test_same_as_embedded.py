"""One scenario through the embedded Cordon and through `cordon up --distributed`: equal counts, verdicts, decisions."""

import shutil
from importlib import resources
from pathlib import Path

import pytest

from deploy.embedded import running
from deploy.kafka.broker import LocalKafka
from detectors.backtest.library import parse
from detectors.backtest.scenario import Scenario
from ingest.clock import WallClock
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.distributed import running_distributed
from support.kafka import delete_topics, kafka_settings, unique_lane
from support.sameness import Left, left_in, replay_through
from support.system import cordon

PARTITIONS = 4
DEVICES = 6000
ROLES = ("report", "rollout", "drive", "operator")
SHORT = (
    ("duration_seconds = 7200", "duration_seconds = 420"),
    ("warm_up_seconds = 1800", "warm_up_seconds = 180"),
    ("check_in_seconds = 300", "check_in_seconds = 60"),
    # In four minutes only crashes that are reported can kill: silence takes a quarter of an hour.
    ("report_share = 0.03", "report_share = 0.5"),
)


def scenario() -> Scenario:
    """Return july-19 with a short warm-up and a short day."""
    text = (resources.files("detectors.backtest") / "scenarios" / "july-19.toml").read_text()
    for old, new in SHORT:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return parse(text, "short")


def through_embedded(folder: Path) -> Left:
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
        # Upkeep would compact the verdicts away that are to be compared.
        one.embedded.parts.log.maintain = lambda: 0  # type: ignore[method-assign]  # for this test's sake
        urls = {"reports": one.reports_url, "streams": one.streams_url}
        result = replay_through(scenario(), urls, one.token(*ROLES), "replay", DEVICES)
        return left_in(log, Topics("replay", PARTITIONS), result)


def through_distributed(kafka: LocalKafka, folder: Path, topics: Topics) -> Left:
    options = [part for role in ROLES for part in ("--role", role)]
    made = cordon("token", "add", "replay", "--tenant", "*", *options, "--data", folder)
    with running_distributed(
        folder,
        kafka.bootstrap,
        workers=2,
        lane=topics.lane,
        device_partitions=PARTITIONS,
        keyed_partitions=topics.keyed_partitions,
    ) as many:
        result = replay_through(scenario(), many.urls, made.stdout.strip(), topics.lane, DEVICES)
    log = KafkaLog(
        connection_of(kafka_settings(kafka, topics)),
        topic_specs(topics),
        WallClock(),
        Metrics(),
        lane=topics.lane,
        client="test",
    )
    try:
        return left_in(log, topics, result)
    finally:
        log.close()


@pytest.fixture(scope="module")
def both(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> tuple[Left, Left]:
    """Replay the scenario twice, under one pseudonym key: by it devices are dealt to partitions."""
    folder = tmp_path_factory.mktemp("same")
    embedded = through_embedded(folder / "embedded")
    (folder / "distributed").mkdir()
    shutil.copy(folder / "embedded" / "pseudonym.key", folder / "distributed")
    topics = Topics(unique_lane("same"), PARTITIONS, keyed_partitions=2)
    try:
        return embedded, through_distributed(kafka, folder / "distributed", topics)
    finally:
        delete_topics(kafka, topic_specs(topics))


@pytest.mark.timeout(240)
def test_cohort_counts_are_equal(both: tuple[Left, Left]) -> None:
    embedded, distributed = both
    assert len(embedded.cohorts) > 300
    assert any(windows for _, windows in embedded.cohorts.values())
    assert distributed.cohorts.keys() == embedded.cohorts.keys()
    for key, step in embedded.cohorts.items():
        assert distributed.cohorts[key] == step, key


@pytest.mark.timeout(240)
def test_verdicts_are_equal_one_by_one(both: tuple[Left, Left]) -> None:
    embedded, distributed = both
    assert distributed.verdicts.keys() == embedded.verdicts.keys()
    assert any(verdict["decision"] == "kill" for said in embedded.verdicts.values() for verdict in said)
    for rollout, said in embedded.verdicts.items():
        assert distributed.verdicts[rollout] == said


@pytest.mark.timeout(240)
def test_decisions_of_the_kill_switch_are_equal(both: tuple[Left, Left]) -> None:
    embedded, distributed = both
    lanes = ({event.pop("lane") for said in left.events.values() for event in said} for left in both)
    assert [len(lane) for lane in lanes] == [1, 1]
    assert any(event["state"] == "killed" for said in embedded.events.values() for event in said)
    assert distributed.events == embedded.events


@pytest.mark.timeout(240)
def test_the_fleet_fared_alike(both: tuple[Left, Left]) -> None:
    embedded, distributed = (left.result for left in both)
    for name in ("pushed", "lost", "killed_ms", "held_ms", "accepted", "sentence"):
        assert getattr(distributed, name) == getattr(embedded, name), name
    assert embedded.killed_ms is not None
