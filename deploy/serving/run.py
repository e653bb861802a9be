"""Runs one process of Cordon to its end: says where it listens, waits for SIGTERM or a failure, and ends in order."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

import click

from deploy.serving.garbage import sparing_collections


class Process(Protocol):
    """A composition root that has been built.

    Attributes:
        failed: set when a part has failed for good; the process should end.
    """

    failed: asyncio.Event

    def urls(self) -> Mapping[str, str]:
        """Return each listener's URL by name, once started."""
        ...

    async def start(self) -> None:
        """Start every part; on failure nothing is left running."""
        ...

    async def stop(self) -> None:
        """End every part in order."""
        ...


async def live(make: Callable[[], Process]) -> int:
    """Run a process until SIGTERM, Ctrl-C or a failure of one of its parts; return its exit code.

    Args:
        make: builds it, on the running loop.
    """
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    process = make()
    ended = asyncio.create_task(end.wait())
    # A process that waits for Kafka has not started, and must end all the same when it is asked to.
    starting = asyncio.create_task(process.start())
    await asyncio.wait({ended, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    await starting
    for name, url in process.urls().items():
        click.echo(f"{name:8} {url}")
    click.echo("ready", nl=True)
    sys.stdout.flush()
    failed = asyncio.create_task(process.failed.wait())
    with sparing_collections():
        await asyncio.wait({ended, failed}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    failed.cancel()
    await process.stop()
    return 1 if process.failed.is_set() else 0
