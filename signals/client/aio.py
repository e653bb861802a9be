"""The asynchronous twin of `KillSwitchClient`, for programs that live on an event loop.

The same core verifies, orders and remembers; only the bytes are read another way. Its invariants are those of the
synchronous client, and the same tests run over both.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import httpx2

from detectors.scope import Scope
from ingest.clock import Clock
from ingest.topics import LIVE_LANE
from signals.client.errors import ClientError
from signals.client.subscription import (
    CONNECT_SECONDS,
    CONNECTION_ERRORS,
    EVENT_BYTES_MAX,
    SILENCE_SECONDS,
    DrillsWord,
    Message,
    Subscription,
    Wish,
)
from signals.events import Switch
from signals.killswitch.effective import Effective
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import VerifiedEvent

_LOGGER = logging.getLogger(__name__)
FOLLOW_SECONDS = 15.0


class AsyncKillSwitchClient:
    """Subscribes to one lane's kill-switch events and leases, on the running event loop."""

    def __init__(
        self,
        url: str,
        keys: PublicKeys,
        *,
        token: str | None = None,
        rollout: str | None = None,
        lane: str = LIVE_LANE,
        from_start: bool = False,
        last_event_id: str | None = None,
        state: Path | str | None = None,
        may_save: Callable[[], bool] = lambda: True,
        key_file: Path | None = None,
        leases: bool = True,
        drills: DrillsWord = "none",
        silence_seconds: float = SILENCE_SECONDS,
        connects_max: int | None = None,
        on_connect: Callable[[], None] | None = None,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `events` or `follow` connects. Arguments and errors are those of `KillSwitchClient`."""
        wish = Wish(
            url=url,
            token=token,
            rollout=rollout,
            lane=lane,
            from_start=from_start,
            leases=leases,
            drills=drills,
            connects_max=connects_max,
        )
        self._subscription = Subscription(
            wish,
            keys,
            last_event_id=last_event_id,
            state=Path(state) if state is not None else None,
            may_save=may_save,
            key_file=key_file,
            clock=clock,
            monotonic=monotonic,
        )
        self._on_connect = on_connect or (lambda: None)
        self._closed = False
        self._open = asyncio.Event()
        self._changed = asyncio.Event()
        self._failure: ClientError | None = None
        self._task: asyncio.Task[None] | None = None
        self._http = httpx2.AsyncClient(timeout=httpx2.Timeout(CONNECT_SECONDS, read=silence_seconds))

    async def __aenter__(self) -> "AsyncKillSwitchClient":
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.close()

    @property
    def last_event_id(self) -> str | None:
        """The place behind the last event taken."""
        return self._subscription.last_event_id

    async def close(self) -> None:
        """End the subscription."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._http.aclose()

    async def events(self) -> AsyncIterator[Switch]:
        """Yield every verified event in order; see `KillSwitchClient.events`."""
        async for verified in self.verified():
            yield verified.switch

    async def verified(self) -> AsyncIterator[VerifiedEvent]:
        """Yield like `events`, with the signed bytes and digest."""
        async for message in self.messages():
            if isinstance(message, VerifiedEvent):
                yield message

    async def messages(self) -> AsyncIterator[Message]:
        """Yield like `verified`, and every new lease as well."""
        while not self._ended():
            try:
                async for message in self._connection():
                    yield message
            except CONNECTION_ERRORS as error:
                if self._ended():
                    return
                _LOGGER.warning("the kill-switch stream broke, resuming from %s: %s", self.last_event_id, error)
            await asyncio.sleep(self._subscription.failed())

    async def follow(
        self, on_message: Callable[[Message], None] | None = None, timeout_seconds: float = FOLLOW_SECONDS
    ) -> None:
        """Read the stream in a task of its own until `close`; see `KillSwitchClient.follow`."""
        self._task = asyncio.create_task(self._follow(on_message or (lambda _: None)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._open.wait(), timeout_seconds)
        if self._failure is not None:
            raise self._failure
        if not self._open.is_set():
            raise ClientError(
                f"{self._subscription.url} did not open within {timeout_seconds:g} s: is Cordon up there?"
            )

    def decision(
        self, rollout: str, *, ring: str = "", os_build: str = "", model: str = "", tenant: str = ""
    ) -> Effective:
        """Return what to do with a rollout, or a part of it, at this moment; see `KillSwitchClient.decision`."""
        if self._failure is not None:
            raise self._failure
        return self._subscription.decision(rollout, Scope(ring=ring, os_build=os_build, model=model, tenant=tenant))

    def rollouts(self) -> list[str]:
        """Return the rollouts of which anything is known."""
        return list(self._subscription.book.known())

    async def wait(self, timeout_seconds: float) -> None:
        """Wait until an event or a lease comes, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_seconds)

    async def _connection(self) -> AsyncIterator[Message]:
        subscription = self._subscription
        async with self._http.stream(
            "GET", subscription.url, params=subscription.query(), headers=subscription.headers()
        ) as response:
            text = "" if response.status_code == 200 else (await response.aread()).decode(errors="replace")
            if not subscription.answered(response.status_code, text):
                return
            self._on_connect()
            self._open.set()
            async for sent in httpx2.EventSource(response, EVENT_BYTES_MAX):
                message = subscription.take(sent)
                if message is not None:
                    self._note_change()
                    yield message
                # Writing the state is a few milliseconds of disk; a thread for it could be overtaken by the next one.
                subscription.handled(message)

    def _ended(self) -> bool:
        return self._closed

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self, on_message: Callable[[Message], None]) -> None:
        while not self._ended():
            try:
                async for message in self.messages():
                    on_message(message)
            except SwitchError as error:
                _LOGGER.error("NOT BELIEVED, everything is on hold: %s", error)
                with contextlib.suppress(ClientError):
                    await asyncio.sleep(self._subscription.failed())
            except ClientError as error:
                self._fail(error)
                return
            except Exception as error:
                self._fail(ClientError(f"the client failed: {type(error).__name__}: {error}"))
                return

    def _fail(self, error: ClientError) -> None:
        _LOGGER.error("the kill-switch client has ended: %s", error)
        self._failure = error
        self._open.set()
