"""The composition root of the embedded Cordon: every part is made here, once, and handed what it needs.

Order of life: open the log and the store, load the stages' state, open the listeners. Order of death: end the streams,
refuse new reports and flush the ones held, stop the pipeline and the sink after what they have read, close the log.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from deploy.drill.regular import daily_drill
from deploy.embedded.parts import Parts, build
from deploy.serving.garbage import sparing_collections
from deploy.serving.keys import reload_keys
from deploy.serving.loop import run_on_loop
from deploy.serving.servers import Listener
from ingest.gateway.tenants import Role
from ingest.log.interface import LogUnavailableError
from ingest.settings import Settings

MAINTAIN_SECONDS = 1.0
START_SECONDS_MAX = 120.0

logger = logging.getLogger(__name__)


class Embedded:
    """One embedded Cordon on the running event loop.

    Attributes:
        parts: everything it is made of.
        failed: set when a part has failed for good; the process should end.
    """

    def __init__(self, settings: Settings) -> None:
        """Build all parts; nothing runs before `start`.

        Raises:
            LogError: the data folder is in use or can't be used.
            StoreError: the store can't be opened or migrated.
            SettingsError: a setting does not fit.
            PolicyError: the policy can't be used.
        """
        self.settings = settings
        self.failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.parts: Parts = build(settings, self._note_failure)
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._listeners = [
            Listener("reports", self.parts.reports_app, settings.host, settings.reports_port),
            Listener("streams", self.parts.streams_app, settings.host, settings.streams_port),
        ]
        if self.parts.query_app is not None:
            self._listeners.append(Listener("query", self.parts.query_app, "127.0.0.1", settings.query_port))
        self._drill = daily_drill(settings, self.urls, self.parts.tokens, self.parts.metrics)

    def urls(self) -> dict[str, str]:
        """Return each listener's URL by name."""
        return {listener.name: listener.url for listener in self._listeners}

    async def start(self) -> None:
        """Start every part, and return once all listeners answer; on failure nothing is left running.

        Raises:
            LogError: a state can't be loaded.
            ListenError: a port can't be opened.
        """
        try:
            await self._start()
        except BaseException:
            # A pipeline left running would keep the process from ending.
            await self.stop()
            raise

    async def _start(self) -> None:
        await asyncio.to_thread(self.parts.pipeline.start)
        if self.parts.sink is not None:
            self._spawn("store-sink", self.parts.sink.run)
        if self.parts.alerts is not None:
            self._spawn("alerts", self.parts.alerts.run)
        self._spawn("log-maintenance", self._maintain)
        await self.parts.streams.start()
        await asyncio.to_thread(self.parts.webhooks.start)
        self.parts.pagers.start()
        await self.parts.gateway.start()
        for listener in self._listeners:
            await listener.start()
        if self._drill is not None:
            self._spawn("drill", self._drill.run)

    async def stop(self) -> None:
        """End streams first, then drain reports into the log, then let the stages finish what they have read."""
        if self._drill is not None:
            self._drill.stop()
        self.parts.streams.close_streams()
        await self.parts.gateway.drain()
        for listener in self._listeners:
            await listener.stop()
        await self.parts.streams.stop()
        await asyncio.to_thread(self.parts.webhooks.stop)
        await asyncio.to_thread(self.parts.pagers.stop)
        await asyncio.to_thread(self.parts.pipeline.stop)
        self._stopping.set()
        if self.parts.sink is not None:
            self.parts.sink.stop()
        if self.parts.alerts is not None:
            self.parts.alerts.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if self.parts.reader is not None:
            self.parts.reader.close()
        if self.parts.store is not None:
            self.parts.store.close()
        self.parts.log.close()

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:
                logger.exception("%s failed", name)
                self._note_failure(error)

        thread = threading.Thread(target=guarded, name=name)
        self._threads.append(thread)
        thread.start()

    def _note_failure(self, _error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self.failed.set)

    def _maintain(self) -> None:
        while not self._stopping.wait(MAINTAIN_SECONDS):
            try:
                self.parts.log.maintain()
                self.parts.metrics.set("log_bytes", self.parts.log.disk_bytes())
            except LogUnavailableError as error:
                logger.warning("the log can't be maintained now, trying again: %s", error)
            reload_keys(self.parts.ring)


class RunningEmbedded:
    """An embedded Cordon that runs in a thread of this process: for the demo, replays and tests."""

    def __init__(self, embedded: Embedded) -> None:
        """Wrap a started Cordon."""
        self.embedded = embedded
        self._tokens = 0
        urls = embedded.urls()
        self.reports_url, self.streams_url = urls["reports"], urls["streams"]
        self.query_url = urls.get("query", "")
        self.data_dir = Path(embedded.settings.data_dir)

    def token(self, *roles: str, tenants: tuple[str, ...] = ("*",)) -> str:
        """Make a token that speaks for `tenants` in the given roles, and return its text."""
        self._tokens += 1
        name = f"running-{self._tokens}"
        return self.embedded.parts.tokens.add(name, tenants, tuple(Role(role) for role in roles))

    def public_key_path(self) -> Path:
        """Return the file with the public keys that kill-switch events are signed with."""
        return self.embedded.parts.keys.public_path


@contextmanager
def running(settings: Settings) -> Iterator[RunningEmbedded]:
    """Run an embedded Cordon in a thread while the block lasts.

    Raises:
        Exception: whatever kept it from starting.
    """
    ready: Future[RunningEmbedded] = Future()
    ended = threading.Event()

    async def live() -> None:
        loop = asyncio.get_running_loop()
        end = asyncio.Event()
        embedded = Embedded(settings)
        await embedded.start()
        ready.set_result(RunningEmbedded(embedded))
        waiter = loop.create_task(end.wait())
        threading.Thread(target=lambda: (ended.wait(), loop.call_soon_threadsafe(end.set)), daemon=True).start()
        with sparing_collections():
            await waiter
        await embedded.stop()

    def run() -> None:
        try:
            run_on_loop(live())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            else:
                logger.exception("the embedded Cordon ended badly")

    thread = threading.Thread(target=run, name="embedded-cordon")
    thread.start()
    try:
        yield ready.result(START_SECONDS_MAX)
    finally:
        ended.set()
        thread.join()
