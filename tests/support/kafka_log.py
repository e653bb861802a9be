"""Kafka's log for tests that know topics by fixed names and make time pass.

Each opened log has topics of its own on the shared broker. `maintain` does by `DeleteRecords` what the broker's own
retention does by its own clock; to a reader the two look the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition

from deploy.kafka.broker import LocalKafkaCluster
from ingest.clock import DrivenClock
from ingest.log.interface import Entry, Fence, TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import TopicSpec
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.kafka import create_topics, delete_topics, kafka_settings, unique_lane
from support.renamed_log import RenamedLog, renamed


class AgingKafkaLog(RenamedLog):
    """Kafka's log whose aged topics lose by `maintain` what is too old by the test's clock."""

    def __init__(self, log: KafkaLog, prefix: str, specs: Sequence[TopicSpec], clock: DrivenClock, bootstrap: str):
        super().__init__(log, prefix)
        self._retention_ms = {spec.name: spec.retention_ms for spec in specs if spec.retention_ms is not None}
        self._clock = clock
        self._bootstrap = bootstrap
        self._appended: dict[TopicPartition, list[tuple[int, int]]] = {}

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        offsets = super().append(entries, fence)
        for entry, offset in zip(entries, offsets, strict=True):
            if entry.topic in self._retention_ms:
                source = TopicPartition(entry.topic, entry.partition)
                self._appended.setdefault(source, []).append((offset, self._clock.now_ms()))
        return offsets

    def maintain(self) -> None:
        """Delete what has passed its retention."""
        gone: dict[KafkaPartition, int] = {}
        for source, appended in self._appended.items():
            from_ms = self._clock.now_ms() - self._retention_ms[source.topic]
            old = [offset for offset, at_ms in appended if at_ms < from_ms]
            if old:
                gone[KafkaPartition(*self.named(source))] = max(old) + 1
                self._appended[source] = appended[len(old) :]
        if gone:
            admin = KafkaAdminClient(bootstrap_servers=self._bootstrap.split(","))
            try:
                admin.delete_records(gone)
            finally:
                admin.close()


class KafkaLogs:
    """Opens logs on one set of topics."""

    def __init__(self, kafka: LocalKafkaCluster, specs: Sequence[TopicSpec], clock: DrivenClock, **settings: object):
        self.topics = Topics(lane=unique_lane("log"))
        self.prefix = f"{self.topics.lane}."
        self.specs = (*renamed(specs, self.prefix), TopicSpec(self.topics.name("fences"), 1, compacted=True))
        self.metrics = Metrics()
        self._plain = specs
        self._clock = clock
        self._settings = kafka_settings(kafka, self.topics, **settings)

    def open(self, client: str = "test") -> AgingKafkaLog:
        """Return one more log, as another process has it."""
        connection = connection_of(self._settings)
        log = KafkaLog(connection, self.specs, self._clock, self.metrics, lane=self.topics.lane, client=client)
        return AgingKafkaLog(log, self.prefix, self._plain, self._clock, self._settings.kafka_bootstrap)


@contextmanager
def kafka_logs(
    kafka: LocalKafkaCluster, specs: Sequence[TopicSpec], clock: DrivenClock, **settings: object
) -> Iterator[KafkaLogs]:
    """Yield an opener of logs whose topics exist while the block lasts."""
    logs = KafkaLogs(kafka, specs, clock, **settings)
    create_topics(kafka, logs.specs)
    try:
        yield logs
    finally:
        delete_topics(kafka, logs.specs)
