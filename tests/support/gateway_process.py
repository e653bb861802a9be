"""A gateway on an embedded log, posted to for ever by tasks of its own; the parent kills it.

Prints each sequence number once it is acknowledged, so that the parent knows what must be in the log. With `--spool`
the log comes and goes, and hangs now and then, behind a spool.
"""

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ingest.clock import WallClock
from ingest.events import encoder
from ingest.gateway.gateway import Gateway
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.gateway.tenants import TokenBook
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, Fence, LogUnavailableError
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.gateway_rig import ACME, KEY, PARTITIONS, bsod, check_in


class UnreliableLog(EmbeddedLog):
    """Is away for a while every now and then, slow at other times, and sometimes forgets to answer."""

    chance = random.Random()
    away_until = slow_until = 0.0

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        now = time.monotonic()
        if now > self.away_until + 0.05 and self.chance.random() < 0.1:
            self.away_until = now + self.chance.uniform(0.02, 0.15)
        if now > self.slow_until + 0.1 and self.chance.random() < 0.1:
            self.slow_until = now + self.chance.uniform(0.01, 0.1)
        if now < self.away_until:
            raise LogUnavailableError("away, as a test ordered")
        time.sleep(max(0.0, self.slow_until - now))
        offsets = super().append(entries, fence)
        if self.chance.random() < 0.1:
            raise LogUnavailableError("the acknowledgement was lost, as a test ordered")
        return offsets


async def post_for_ever(gateway: Gateway, clock: WallClock, sender: int, base: int) -> None:
    """Post small batches one after another, and say which were acknowledged."""
    number = base + sender * 1_000_000
    while True:
        now_ms = clock.now_ms()
        make = bsod if number % 3 == 0 else check_in
        batch = [make(number + i, at_ms=now_ms, boot_at_ms=now_ms) for i in range(5)]
        answer = await gateway.post(encoder.encode(batch), False, ACME)
        assert answer.accepted == 5
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 5


async def main(folder: Path, base: int, spools: bool) -> None:
    """Run until killed."""
    clock = WallClock()
    topics = Topics("live", PARTITIONS)
    log: EmbeddedLog | SpoolingLog
    if spools:
        behind = UnreliableLog(folder / "log", topic_specs(topics), clock)
        spool = Spool(folder / "spool", 1 << 30, topics, clock)
        log = SpoolingLog(behind, spool, Metrics(), after_seconds=0.03, retry_seconds=(0.01, 0.03))
    else:
        log = EmbeddedLog(folder / "log", topic_specs(topics), clock)
    settings = Settings(linger_ms=3, tick_ms=10)
    tokens = TokenBook.load(folder / "tokens.toml")
    behind_spool = log if isinstance(log, SpoolingLog) else None
    gateway = Gateway(settings, log, topics, clock, Metrics(), tokens, KEY, spool=behind_spool, shared=spools)
    await gateway.start()
    await asyncio.gather(*(post_for_ever(gateway, clock, sender, base) for sender in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), "--spool" in sys.argv[3:]))
