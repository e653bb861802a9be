"""Kafka's log on a real broker, held to the contract of every log."""

from collections.abc import Iterator

import pytest

from deploy.kafka.broker import LocalKafka
from ingest.clock import DrivenClock
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import TopicSpec
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.kafka import create_topics, delete_topics, kafka_settings, unique_lane
from support.log_contract import SPECS, START_MS, Backend, Capabilities, LogContract
from support.renamed_log import RenamedLog, renamed

# Compaction and retention run in the broker, by its own clock; a transaction's marker takes an offset.
CAPABILITIES = Capabilities(driven_clock=False, maintains_on_demand=False, dense=False, wakes_within_seconds=0.1)


class TestKafkaLog(LogContract):
    @pytest.fixture
    def backend(self, kafka: LocalKafka) -> Iterator[Backend]:
        topics = Topics(lane=unique_lane("contract"))
        prefix = f"{topics.lane}."
        specs = (*renamed(SPECS, prefix), TopicSpec(topics.name("fences"), 1, compacted=True))
        create_topics(kafka, specs)
        connection = connection_of(kafka_settings(kafka, topics))
        clock = DrivenClock(START_MS)

        def open_log() -> RenamedLog:
            log = KafkaLog(connection, specs, clock, Metrics(), lane=topics.lane, client="contract")
            return RenamedLog(log, prefix)

        backend = Backend(clock, CAPABILITIES, open_log)
        yield backend
        backend.close()
        delete_topics(kafka, specs)
