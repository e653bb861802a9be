"""A synchronous subscriber to the kill-switch stream that believes nothing it has not verified.

It reconnects with backoff and Last-Event-ID, so a cut or a restart of Cordon costs nothing but time. Invariants: every
`Switch` it yields was signed by a known key, is of the lane asked for, and comes once, in order, after the one before
it; an event that fails a check is raised, never skipped; and `decision` says proceed only while a lease says so.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
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
_JOIN_SECONDS = 1.0


class KillSwitchClient:
    """Subscribes to one lane's kill-switch events and leases.

    Either one thread iterates over `events`, or `follow` reads in a thread of its own; `decision` may be asked by any.
    """

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
        """Prepare; `events` or `follow` connects.

        Args:
            url: of the streams listener, for instance `http://127.0.0.1:8401`.
            keys: whose signatures are believed. Get them from somebody you trust, once; a set fetched from the server
                that also sends the events proves only that it is the same server.
            token: sent as `Authorization: Bearer`.
            rollout: the only rollout wanted; None wants all.
            lane: the only lane believed.
            from_start: begin with the first event ever instead of the next one, where no state says otherwise.
            last_event_id: begin right behind this one; wins over `from_start` and the state.
            state: file that keeps what is known over a restart, one for each client; None keeps nothing.
            may_save: asked before the state is written; False while an event is still being worked on elsewhere.
            key_file: where `keys` came from; read again once something is signed by a key that is not known.
            leases: whether leases are sent too; without them `decision` never says proceed.
            drills: whether drills are sent: `none`, `include` or `only`.
            silence_seconds: a connection without a byte for so long is dead; heartbeats come every 15 s.
            connects_max: failed connections in a row after which `events` raises; None tries for ever.
            on_connect: called each time the stream is open.
            clock: the wall clock, by which leases end.
            monotonic: tells elapsed time, in seconds.

        Raises:
            StateError: there is a state, and it can't be used.
        """
        wish = Wish(
            url=url, token=token, rollout=rollout, lane=lane, from_start=from_start, leases=leases, drills=drills,
            connects_max=connects_max,
        )  # fmt: skip
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
        self._closed = threading.Event()
        self._open = threading.Event()
        self._failure: ClientError | None = None
        self._thread: threading.Thread | None = None
        self._http = httpx2.Client(timeout=httpx2.Timeout(CONNECT_SECONDS, read=silence_seconds))

    def __enter__(self) -> "KillSwitchClient":
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    @property
    def last_event_id(self) -> str | None:
        """The place behind the last event taken."""
        return self._subscription.last_event_id

    def close(self) -> None:
        """End the subscription; `events` ends at the next byte or heartbeat."""
        self._closed.set()
        self._http.close()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
            if not self._thread.is_alive():
                self._subscription.save()

    def events(self) -> Iterator[Switch]:
        """Yield every verified event in order, for ever, reconnecting as needed.

        With a state on disk, an event counts as handled once the next one is asked for: one whose handling was cut off
        by a crash is yielded again.

        Raises:
            SwitchError: an event can't be believed. Hold the rollout and tell people; calling again reads on from
                before that event, so it is raised again until it is resolved.
            RefusedError: Cordon will not serve this subscription.
            ClientError: `connects_max` connections in a row failed.
        """
        for verified in self.verified():
            yield verified.switch

    def verified(self) -> Iterator[VerifiedEvent]:
        """Yield like `events`, with the signed bytes and digest."""
        for message in self.messages():
            if isinstance(message, VerifiedEvent):
                yield message

    def messages(self) -> Iterator[Message]:
        """Yield like `verified`, and every new lease as well."""
        while not self._closed.is_set():
            try:
                yield from self._connection()
            except CONNECTION_ERRORS as error:
                if self._closed.is_set():
                    return
                _LOGGER.warning("the kill-switch stream broke, resuming from %s: %s", self.last_event_id, error)
            self._closed.wait(self._subscription.failed())

    def follow(
        self, on_message: Callable[[Message], None] | None = None, timeout_seconds: float = FOLLOW_SECONDS
    ) -> None:
        """Read the stream in a thread of its own until `close`; return once it is open.

        What can't be believed is logged, keeps everything on hold, and is tried again.

        Args:
            on_message: called in that thread with each new event and lease.
            timeout_seconds: how long the stream may take to open for the first time.

        Raises:
            ClientError: it does not open, or Cordon refuses this subscription.
        """
        self._thread = threading.Thread(
            target=self._follow, args=(on_message or (lambda _: None),), name="killswitch-client", daemon=True
        )
        self._thread.start()
        self._open.wait(timeout_seconds)
        if self._failure is not None:
            raise self._failure
        if not self._open.is_set():
            raise ClientError(
                f"{self._subscription.url} did not open within {timeout_seconds:g} s: is Cordon up there?"
            )

    def decision(
        self, rollout: str, *, ring: str = "", os_build: str = "", model: str = "", tenant: str = ""
    ) -> Effective:
        """Return what to do with a rollout, or a part of it, at this moment; any thread.

        It says proceed only while a lease holds, and never once Cordon is blind, dead or unreachable for longer. Of the
        part, tell all that is known: what is left out may be stopped.

        Raises:
            UnknownRolloutError: nothing of that rollout has come.
            UnknownPartError: it declares no such ring, as far as the latest lease tells, or `os_build` is no build.
            ClientError: `follow` has ended for good.
        """
        if self._failure is not None:
            raise self._failure
        return self._subscription.decision(rollout, Scope(ring=ring, os_build=os_build, model=model, tenant=tenant))

    def rollouts(self) -> list[str]:
        """Return the rollouts of which anything is known."""
        return list(self._subscription.book.known())

    def wait(self, timeout_seconds: float) -> None:
        """Wait until an event or a lease comes, but no longer than this; for loops that ask `decision` again."""
        book = self._subscription.book
        book.wait(book.changes, timeout_seconds)

    def _connection(self) -> Iterator[Message]:
        subscription = self._subscription
        with self._http.stream(
            "GET", subscription.url, params=subscription.query(), headers=subscription.headers()
        ) as response:
            text = "" if response.status_code == 200 else response.read().decode(errors="replace")
            if not subscription.answered(response.status_code, text):
                return
            self._on_connect()
            self._open.set()
            for sent in httpx2.EventSource(response, EVENT_BYTES_MAX):
                message = subscription.take(sent)
                if message is not None:
                    yield message
                subscription.handled(message)

    def _follow(self, on_message: Callable[[Message], None]) -> None:
        while not self._closed.is_set():
            try:
                for message in self.messages():
                    on_message(message)
            except SwitchError as error:
                _LOGGER.error("NOT BELIEVED, everything is on hold: %s", error)
                with contextlib.suppress(ClientError):
                    self._closed.wait(self._subscription.failed())
            except ClientError as error:
                self._fail(error)
                return
            except Exception as error:
                # Closing the client under a read may raise whatever the transport likes; else it is a fault to tell of.
                if not self._closed.is_set():
                    self._fail(ClientError(f"the client failed: {type(error).__name__}: {error}"))
                return

    def _fail(self, error: ClientError) -> None:
        _LOGGER.error("the kill-switch client has ended: %s", error)
        self._failure = error
        self._open.set()
