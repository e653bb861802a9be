"""A child process for tests on a real broker: a grouping worker as a member of its group, until it is ended.

Run as `python -m support.grouping_worker SETTINGS_JSON`. Chunks are of eight rows and its clock runs a third
of a second a look, so that state is written often and a kill falls between chunks. It ends in order on SIGTERM.
"""

import asyncio
import logging
import os
import signal
import sys

import msgspec

from deploy.workers.grouping import GroupingService
from deploy.workers.shares import plan_of
from deploy.workers.watchdog import Heartbeat, Watchdog
from deploy.workers.words import ProgressWriter
from ingest.clock import WallClock
from ingest.grouping import snapshot
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.grouping_child import HastyClock


async def run(settings: Settings) -> None:
    """Group until told to end."""
    topics = Topics(settings.lane, settings.device_partitions, settings.keyed_partitions)
    connection, metrics = connection_of(settings), Metrics()
    log = KafkaLog(
        connection, topic_specs(topics), WallClock(), metrics, lane=settings.lane, client=settings.worker_name
    )
    words = ProgressWriter(log, topics, settings.worker_name, WallClock(), metrics)
    service = GroupingService(log, connection, topics, plan_of(settings), words, HastyClock(), metrics)
    heartbeat, watchdog = Heartbeat(), Watchdog(settings.stall_seconds, metrics)
    watchdog.watch(lambda: [*service.standings(), heartbeat.standing()])
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    heartbeat.start()
    watchdog.start()
    words.start()
    await service.start()
    ended = asyncio.ensure_future(service.wait_until_stopped())
    await asyncio.wait([ended, asyncio.ensure_future(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
    await service.stop()
    words.stop()
    watchdog.stop()
    log.close()
    if service.crash_reason is not None:
        raise service.crash_reason


def main() -> None:
    """Run with the settings given on the command line."""
    logging.basicConfig(level=os.environ.get("LEVEL", "INFO"), format="%(asctime)s %(threadName)s %(name)s %(message)s")
    snapshot.CHUNK_ROWS = 8
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Settings)))


if __name__ == "__main__":
    main()
