"""Kafka's log on a real broker, held to the contract of every log."""

from collections.abc import Iterator

import pytest

from deploy.kafka.broker import LocalKafka
from ingest.clock import DrivenClock
from support.kafka_log import kafka_logs
from support.log_contract import SPECS, START_MS, Backend, Capabilities, LogContract

# Compaction runs in the broker, which also says when a record was appended; a transaction's marker takes an offset.
CAPABILITIES = Capabilities(driven_clock=False, maintains_on_demand=False, dense=False)


class TestKafkaLog(LogContract):
    @pytest.fixture
    def backend(self, kafka: LocalKafka) -> Iterator[Backend]:
        clock = DrivenClock(START_MS)
        with kafka_logs(kafka, SPECS, clock) as logs:
            backend = Backend(clock, CAPABILITIES, logs.open)
            yield backend
            backend.close()
