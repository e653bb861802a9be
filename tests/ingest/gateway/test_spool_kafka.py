"""The spool before a real broker that is paused and killed: posts go on, and what they brought is there afterwards."""

import asyncio
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.clock import WallClock
from ingest.events import Batch, Tick, encoder
from ingest.gateway.gateway import Gateway
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.gateway.tenants import TokenBook
from ingest.log.interface import TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.gateway_rig import ACME, KEY, bsod, check_in, read_record
from support.kafka import create_topics, kafka_settings
from support.spool_rig import eventually

if TYPE_CHECKING:
    from deploy.kafka.broker import LocalKafka


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_posts_go_on_through_a_paused_and_a_killed_broker(own_kafka: "LocalKafka", tmp_path: Path) -> None:
    topics, clock, metrics = Topics("live", 2), WallClock(), Metrics()
    create_topics(own_kafka, topic_specs(topics))
    settings = kafka_settings(own_kafka, topics, kafka_timeout_ms=2000, spool_after_ms=500, tick_ms=100)
    behind = KafkaLog(connection_of(settings), topic_specs(topics), clock, metrics, lane="live", client="gateway-1")
    spool = Spool(tmp_path / "spool", 64 << 20, topics, clock)
    log = SpoolingLog(behind, spool, metrics, after_seconds=0.5)
    gateway = Gateway(
        settings, log, topics, clock, metrics, TokenBook.load(tmp_path / "t"), KEY, spool=log, shared=True
    )
    acknowledged: set[int] = set()
    longest = 0.0

    def fail() -> None:
        time.sleep(2)
        own_kafka.pause()
        time.sleep(4)
        own_kafka.resume()
        time.sleep(3)
        own_kafka.kill()
        time.sleep(2)
        own_kafka.start()

    async def play() -> None:
        nonlocal longest
        await gateway.start()
        failing = threading.Thread(target=fail)
        failing.start()
        number = 0
        while failing.is_alive():
            now_ms = clock.now_ms()
            make = bsod if number % 3 else check_in
            started = time.monotonic()
            await gateway.post(encoder.encode(make(number, at_ms=now_ms, boot_at_ms=now_ms)), False, ACME)
            longest = max(longest, time.monotonic() - started)
            acknowledged.add(number)
            number += 1
            await asyncio.sleep(0.01)
        failing.join()
        await asyncio.to_thread(eventually, lambda: spool.empty, 60)
        await gateway.drain()

    asyncio.run(asyncio.wait_for(play(), 150))
    eventually(lambda: spool.empty, 30)
    assert metrics.value("spooled_total") > 10
    assert longest < 5, "no post waited for Kafka"
    found: set[int] = set()
    for word in ("activity", "crashes"):
        for partition in range(2):
            source = TopicPartition(topics.name(word), partition)
            offset, end, tick_ms = 0, log.bounds(source)[1], 0
            while offset < end:
                for record in log.read(source, offset):
                    offset = record.offset + 1
                    value = read_record(record.value or b"")
                    if isinstance(value, Tick):
                        tick_ms = max(tick_ms, value.at_ms)
                    elif isinstance(value, Batch):
                        fresh = {report.seq for report in value.reports} - found
                        assert not fresh or value.received_at_ms >= tick_ms
                        found |= fresh
    log.close()
    assert acknowledged <= found
