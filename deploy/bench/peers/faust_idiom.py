"""Counting reports the way Faust's documentation does: a Record type, an agent, `count[key] += 1` in a windowed table.

A real worker with the memory store, without its web server; the driver is aiokafka, the buffers are raised so that
fetching never waits for the agent.
"""

import os
import sys
import time
from datetime import timedelta
from typing import Any

import faust
from faust.types import StreamT

from deploy.bench.peers import CLOSING, PARTITIONS, WINDOW_SECONDS, tell


class Report(faust.Record, serializer="json"):
    """One report, flat."""

    kind: str
    device: str
    seq: int
    at_ms: int
    boot_id: str
    boot_at_ms: int
    os_build: str
    form_factor: str
    model: str
    ring: str
    site: str
    tenant: str
    update_version: str


def app_of(broker: str, topic: str, records: int, data: str) -> faust.App:
    """Return the app that counts `records` reports of `topic` and ends."""
    app = faust.App(
        f"faust-{topic}",
        broker=f"kafka://{broker}",
        store="memory://",
        datadir=data,
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=65_536,
        broker_max_poll_records=5000,
        producer_linger=0.05,
    )
    source = app.topic(topic, value_type=Report, key_type=bytes)
    counts = app.Table("counts", default=int, partitions=PARTITIONS).tumbling(
        timedelta(seconds=WINDOW_SECONDS), expires=timedelta(days=1)
    )

    @app.agent(source)
    async def count(reports: StreamT[Report]) -> None:
        seen, began = 0, 0.0
        async for report in reports:
            if report.kind == CLOSING:
                continue
            if not seen:
                began = time.perf_counter()
            counts[f"{report.update_version}|{report.kind}"] += 1
            seen += 1
            if seen == records:
                _end(counts, time.perf_counter() - began)

    return app


def _end(counts: Any, seconds: float) -> None:
    found = {(key, int(window[0] * 1000)): count for (key, window), count in counts.table.data.items()}
    tell(faust.__version__, seconds, found)
    # Its orderly end would wait for the changelog and the group; what was asked for has been said.
    os._exit(0)


def main(broker: str, topic: str, records: int, data: str) -> None:
    """Run the worker."""
    app = app_of(broker, topic, records, data)
    sys.argv = ["faust", "worker", "--loglevel", "warn", "--without-web"]
    app.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
