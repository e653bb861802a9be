"""A gateway on an embedded log, posted to for ever by tasks of its own; the parent kills it.

Prints each sequence number once it is acknowledged, so that the parent knows what must be in the log.
"""

import asyncio
import sys
from pathlib import Path

from ingest.clock import WallClock
from ingest.events import encoder
from ingest.gateway.gateway import Gateway
from ingest.gateway.tenants import TokenBook
from ingest.log.embedded import EmbeddedLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.gateway_rig import ACME, KEY, PARTITIONS, bsod, check_in


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


async def main(folder: Path, base: int) -> None:
    """Run until killed."""
    clock = WallClock()
    topics = Topics("live", PARTITIONS)
    log = EmbeddedLog(folder / "log", topic_specs(topics), clock)
    settings = Settings(linger_ms=3, tick_ms=10)
    tokens = TokenBook.load(folder / "tokens.toml")
    gateway = Gateway(settings, log, topics, clock, Metrics(), tokens, KEY)
    await gateway.start()
    await asyncio.gather(*(post_for_ever(gateway, clock, sender, base) for sender in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
