"""A gateway on a log in memory, reached through its ASGI application, for the gateway's tests."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec

from ingest.activity import ActivityBatch, activity_decoder, unpack
from ingest.clock import Clock, DrivenClock
from ingest.events import Batch, Bsod, CheckIn, Installed, Offered, Report, RolloutNotice, Tick, device_record_decoder
from ingest.gateway.app import reports_app
from ingest.gateway.gateway import Gateway, Progress
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.gateway.tenants import Principal, Role, TokenBook
from ingest.log.interface import TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.planning import NoPlanner
from ingest.settings import Settings
from ingest.topics import Topics

NOW_MS = 1_721_362_140_000  # 2024-07-19 04:09 UTC
PARTITIONS = 4
KEY = bytes(range(32))
ACME = Principal("acme-fleet", frozenset({"acme"}), frozenset({Role.REPORT}))
COLLECTOR = Principal("collector", frozenset({"*"}), frozenset({Role.REPORT}))
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine in a loop of its own, for at most half a minute."""
    return asyncio.run(asyncio.wait_for(work, 30))


def common(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the fields every report has, of device `number`."""
    fields: dict[str, Any] = {
        "device": f"host-{number}",
        "seq": number,
        "at_ms": NOW_MS - 1000,
        "boot_id": "boot-1",
        "boot_at_ms": NOW_MS - 3_600_000,
        "os_build": "22631.3880",
        "form_factor": "laptop",
    }
    return fields | changes


def check_in(number: int = 0, **changes: Any) -> CheckIn:
    return CheckIn(**common(number, **changes))


def bsod(number: int = 0, **changes: Any) -> Bsod:
    return Bsod(**common(number, bugcheck=0x50, module="csagent.sys", **changes))


def offered(number: int = 0, version: str = "291", **changes: Any) -> Offered:
    update = {"vendor": "crowdstrike", "product": "content", "update_kind": "content", "version": version}
    return Offered(**common(number, **(update | changes)))


def installed(number: int = 0, version: str = "291", **changes: Any) -> Installed:
    update = {"vendor": "crowdstrike", "product": "content", "update_kind": "content", "version": version}
    return Installed(**common(number, **(update | changes)))


class Rig:
    """One gateway with its log, clock, metrics, tokens and a client."""

    def __init__(
        self,
        folder: Path,
        clock: Clock | None = None,
        log: MemoryLog | None = None,
        lane: str = "replay-1",
        progress: Progress | None = None,
        spool_bytes: int = 0,
        shared: bool = False,
        **settings: Any,
    ) -> None:
        self.clock = clock or DrivenClock(NOW_MS)
        self.topics = Topics(lane, PARTITIONS)
        self.log = log or MemoryLog(topic_specs(self.topics), self.clock)
        self.metrics = Metrics()
        self.tokens = TokenBook.load(folder / "tokens.toml")
        changes: dict[str, Any] = {"linger_ms": 0, "tick_ms": 20, "lane": lane} | settings
        self.settings = Settings(**changes)
        self.spool: SpoolingLog | None = None
        if spool_bytes:
            spool = Spool(folder / "spool", spool_bytes, self.topics, self.clock)
            after_seconds = self.settings.spool_after_ms / 1000
            self.spool = SpoolingLog(
                self.log, spool, self.metrics, after_seconds=after_seconds, retry_seconds=(0.01, 0.05)
            )
        self.gateway = Gateway(
            self.settings,
            self.spool or self.log,
            self.topics,
            self.clock,
            self.metrics,
            self.tokens,
            KEY,
            progress,
            spool=self.spool,
            shared=shared,
        )
        self.app = reports_app(self.gateway, NoPlanner())

    def token(self, name: str = "acme-fleet", tenants: str = "acme", roles: str = "report") -> dict[str, str]:
        """Return the Authorization header of a new token."""
        return {"authorization": "Bearer " + self.tokens.add(name, tenants.split(), roles.split())}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Start the gateway, give a client, and drain."""
        await self.gateway.start()
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client
        await self.gateway.drain()

    def records(self, word: str, partition: int) -> list[Batch | Tick | RolloutNotice]:
        """Return every record of one device partition."""
        found = self.log.read(TopicPartition(self.topics.name(word), partition), 0, 1_000_000, 1 << 40)
        return [read_record(record.value or b"") for record in found]

    def batches(self, word: str) -> list[Batch]:
        """Return every batch of a device topic."""
        return [item for p in range(PARTITIONS) for item in self.records(word, p) if isinstance(item, Batch)]

    def reports(self, word: str) -> list[Report]:
        """Return every report of a device topic."""
        return [report for batch in self.batches(word) for report in batch.reports]

    def notices(self, partition: int) -> list[RolloutNotice]:
        """Return every rollout notice of one activity partition."""
        return [item for item in self.records("activity", partition) if isinstance(item, RolloutNotice)]

    def ticks(self, word: str, partition: int) -> list[int]:
        """Return the times of the ticks of one partition."""
        return [item.at_ms for item in self.records(word, partition) if isinstance(item, Tick)]


def read_record(value: bytes) -> Batch | Tick | RolloutNotice:
    """Decode a record of a device topic, with the columns of activity turned back into reports."""
    try:
        got = activity_decoder.decode(value)
    except msgspec.ValidationError:
        return device_record_decoder.decode(value)
    if isinstance(got, ActivityBatch):
        return Batch(gateway=got.gateway, received_at_ms=got.received_at_ms, reports=list(unpack(got)))
    return got
