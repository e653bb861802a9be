"""A store with recorded rollouts in it, behind the product's read-only endpoint: for `cordon backtest --store`."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

from ingest.activity import pack
from ingest.clock import DrivenClock
from ingest.events import Batch, Bsod, CheckIn, DiskVersion, Installed, Offered, Report, encoder
from ingest.log.interface import Entry
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Ring, Rollout, rollout_id
from ingest.store.chdb import ChdbStore
from ingest.store.http import application
from ingest.store.migrate import Migrator
from ingest.store.reader import ChdbReader
from ingest.store.sink import Sink
from ingest.topics import Topics

BEGIN_MS = 1_719_792_000_000  # 2024-07-01 00:00 UTC.
MINUTE_MS = 60_000
DAY_MS = 86_400_000
# When both rollouts begin.
ORIGIN_MS = BEGIN_MS + 3 * DAY_MS
TENANTS = ("acme", "bolt", "cafe", "dune", "echo")
VENDOR = "contoso"
BAD, GOOD = "sensor", "viewer"


class RecordedFleet:
    """Devices with two products of one vendor: the new `sensor` crashes most that load it, the new `viewer` nobody.

    The canary ring, a third of the fleet, gets both over half an hour, three days after all reported the old versions.
    """

    def __init__(self, seed: int = 5, devices: int = 900) -> None:
        self._draw = random.Random(seed)
        self._seq = 0
        self.activity: list[tuple[int, Offered | Installed | CheckIn]] = []
        self.crashes: list[tuple[int, Bsod]] = []
        self.canary = devices // 3
        for number in range(devices):
            self._device(f"{number:016x}", number)

    def _common(self, device: str, number: int, at_ms: int) -> dict[str, Any]:
        self._seq += 1
        return {
            "device": device, "seq": self._seq, "at_ms": at_ms, "boot_id": "b", "boot_at_ms": BEGIN_MS,
            "os_build": ("22631.3880", "19045.4651")[number % 2], "form_factor": "laptop", "model": "Latitude 5440",
            "ring": "canary" if number < self.canary else "broad", "tenant": TENANTS[number % len(TENANTS)],
        }  # fmt: skip

    def _device(self, device: str, number: int) -> None:
        for product in (BAD, GOOD):
            at = BEGIN_MS + self._draw.randrange(DAY_MS)
            said = Installed(
                **self._common(device, number, at), vendor=VENDOR, product=product, update_kind="driver", version="1"
            )
            self.activity.append((at, said))
        if number >= self.canary:
            return
        for product in (BAD, GOOD):
            at = ORIGIN_MS + 1 + self._draw.randrange(30 * MINUTE_MS)
            offered = Offered(
                **self._common(device, number, at), vendor=VENDOR, product=product, update_kind="driver", version="2"
            )
            self.activity.append((at, offered))
            if product == BAD and self._draw.random() < 0.8:
                self.crashes.append((at + 90_000, self._crash(device, number, at + 5_000)))

    def _crash(self, device: str, number: int, at_ms: int) -> Bsod:
        versions = [DiskVersion(vendor=VENDOR, product=BAD, version="2")]
        return Bsod(**self._common(device, number, at_ms), bugcheck=0x50, module="contoso.sys", versions=versions)

    def entries(self, topics: Topics) -> list[Entry]:
        """Return the log's entries: rollouts, then activity and crashes by the minute in which they were received."""
        found = [
            Entry(
                topics.name("rollouts"), 0, rollout_id(VENDOR, product, "2").encode(), encoder.encode(declared(product))
            )
            for product in (BAD, GOOD)
        ]
        for at_ms in range(ORIGIN_MS - 5 * MINUTE_MS, ORIGIN_MS + 60 * MINUTE_MS, MINUTE_MS):
            heard = CheckIn(**self._common("00000000000000aa", 0, at_ms))
            self.activity.append((at_ms, heard))
        for minute in sorted({at_ms // MINUTE_MS for at_ms, _ in self.activity}):
            said = [report for at_ms, report in self.activity if at_ms // MINUTE_MS == minute]
            received = minute * MINUTE_MS + 1_000
            found.append(Entry(topics.name("activity"), 0, None, encoder.encode(pack(said, "g1", received))))
        for at_ms, crash in sorted(self.crashes, key=lambda one: one[0]):
            reports: list[Report] = [crash]
            batch = Batch(gateway="g1", received_at_ms=at_ms, reports=reports)
            found.append(Entry(topics.name("crashes"), 0, None, encoder.encode(batch)))
        return found


def declared(product: str) -> Rollout:
    """Return the rollout of a product's version 2, as the log has it."""
    return Rollout(
        rollout=rollout_id(VENDOR, product, "2"), vendor=VENDOR, product=product, update_kind="driver", version="2",
        origin_ms=ORIGIN_MS, bound=Bound.DECLARED, declared_by="t",
        rings=[Ring(name="canary", starts_at_ms=ORIGIN_MS, over_seconds=1800)],
    )  # fmt: skip


@contextmanager
def served(path: Path, fleet: RecordedFleet) -> Iterator[int]:
    """Fill a store with the fleet's reports and give the port of its endpoint; lane `empty` has nothing in it."""
    topics, clock = Topics(device_partitions=1), DrivenClock(BEGIN_MS)
    log = MemoryLog(topic_specs(topics), clock)
    log.append(fleet.entries(topics))
    empty, store = ChdbStore(path, "cordon_empty"), ChdbStore(path, "cordon")
    Migrator(empty).apply()
    Migrator(store).apply()
    sink = Sink(log, store, topics, Metrics(), clock)
    sink.recover()
    sink.drain()
    reader = ChdbReader(path, "cordon")
    server = _Endpoint(reader)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        reader.close()
        store.close()
        empty.close()


class _Endpoint(ThreadingHTTPServer):
    """Serves the product's endpoint from a thread of the test."""

    def __init__(self, reader: ChdbReader) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.application = application(reader, Metrics())


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Endpoint)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        transport = httpx2.ASGITransport(app=self.server.application)

        async def answered() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.post(self.path, content=body)

        answer = asyncio.run(answered())
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""
