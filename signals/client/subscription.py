"""One subscription, without its connection: what is asked of Cordon, and what becomes of what it sends.

Shared by the synchronous and the asynchronous client, which only read bytes. Invariant: the place to resume from moves
past an event only after the event was verified and taken.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import httpx2

from detectors.scope import Scope
from ingest.clock import Clock, WallClock
from ingest.topics import LIVE_LANE
from signals.client.book import Book
from signals.client.errors import ClientError, RefusedError, StateError
from signals.client.state import Kept, read_state, write_state
from signals.events import Envelope
from signals.killswitch.effective import Effective
from signals.killswitch.signing import PublicKeys, SwitchError, UnknownKeyError
from signals.killswitch.verify import (
    LeaseUselessError,
    VerifiedEvent,
    VerifiedLease,
    open_event,
    open_lease,
    parse_envelope,
)

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 40.0
BACKOFF_SECONDS_MAX = 30.0
EVENT_BYTES_MAX = 1 << 20
# What ends one connection and is tried again: a proxy's page in the place of a stream is no better than a cut.
CONNECTION_ERRORS = (httpx2.TransportError, httpx2.StreamError)
SAVE_SECONDS = 1.0
_REFUSALS_FOR_GOOD = frozenset({400, 401, 403, 404})
_LOGGER = logging.getLogger(__name__)

_Opened = TypeVar("_Opened", VerifiedEvent, VerifiedLease)
Message = VerifiedEvent | VerifiedLease
DrillsWord = Literal["none", "include", "only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client subscribes to.

    Attributes:
        url: of the streams listener.
        token: sent as `Authorization: Bearer`.
        rollout: the only rollout wanted; None wants all.
        lane: the only lane believed.
        from_start: begin with the first event ever.
        leases: whether leases are sent as well.
        drills: whether drills are sent.
        connects_max: failed connections in a row after which it is given up; None: never.
    """

    url: str
    token: str | None = None
    rollout: str | None = None
    lane: str = LIVE_LANE
    from_start: bool = False
    leases: bool = True
    drills: DrillsWord = "none"
    connects_max: int | None = None


class Subscription:
    """Verifies, orders, remembers; used by one thread but for `decision`."""

    def __init__(
        self,
        wish: Wish,
        keys: PublicKeys,
        *,
        last_event_id: str | None = None,
        state: Path | None = None,
        may_save: Callable[[], bool] = lambda: True,
        key_file: Path | None = None,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare, from the state on disk where there is one.

        Args:
            wish: what is subscribed to.
            keys: whose signatures are believed.
            last_event_id: begin right behind this one; wins over the state's.
            state: the file that keeps what is known; None keeps nothing.
            may_save: asked before the state is written; False while something that came is not done with.
            key_file: where `keys` came from; read again once something is signed by a key that is not known.
            clock: the wall clock, by which leases end.
            monotonic: tells elapsed time, in seconds.

        Raises:
            StateError: the state can't be used.
        """
        self.wish, self._keys, self._state, self._may_save = wish, keys, state, may_save
        self._key_file = key_file
        self._clock, self._monotonic = clock or WallClock(), monotonic
        kept = read_state(state, keys, wish.lane, wish.rollout) if state is not None else None
        self.last_event_id = last_event_id or (kept.last_event_id if kept is not None else None)
        self.book = Book(wish.lane, from_start=wish.from_start and self.last_event_id is None)
        if kept is not None:
            self._recall(kept)
        self.url = f"{wish.url.rstrip('/')}/v1/killswitch/stream"
        self._retry_seconds = 1.0
        self._failures = 0
        self._dirty = self._doubted_event = False
        self._saved_at = -SAVE_SECONDS

    def query(self) -> dict[str, str]:
        """Return the query of the request."""
        wish = self.wish
        found = {"from": "start" if wish.from_start else "latest"}
        found |= {"rollout": wish.rollout} if wish.rollout else {}
        found |= {"leases": "1"} if wish.leases else {}
        return found | ({"drills": wish.drills} if wish.drills != "none" else {})

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        found = {"accept": "text/event-stream"}
        found |= {"authorization": f"Bearer {self.wish.token}"} if self.wish.token else {}
        return found | ({"last-event-id": self.last_event_id} if self.last_event_id else {})

    def answered(self, status: int, text: str) -> bool:
        """Tell whether the stream is open; if not, it may be tried again.

        Raises:
            RefusedError: trying again would not help.
        """
        if status in _REFUSALS_FOR_GOOD:
            raise RefusedError(f"{self.url} answered {status}: {text[:500]}")
        if status == 200 and self.wish.rollout is not None:
            self.book.announce(self.wish.rollout)
        return status == 200

    def take(self, sent: httpx2.ServerSentEvent) -> Message | None:
        """Take what was sent; return an event or a lease that is new.

        Raises:
            SwitchError: it can't be believed. The place to resume from stays before it.
        """
        if sent.retry is not None:
            self._retry_seconds = min(sent.retry / 1000, BACKOFF_SECONDS_MAX)
        self._failures = 0
        found: Message | None = None
        try:
            if sent.data and sent.event == "killswitch":
                found = self._event(sent.data)
            elif sent.data and sent.event == "lease":
                found = self._lease(sent.data)
        except SwitchError as error:
            self.book.doubted(error)
            self._doubted_event = self._doubted_event or sent.event == "killswitch"
            raise
        # The event that was not believed comes again before any other: only an event can show that the stream is sound.
        if self.book.doubt is not None and (
            sent.event == "killswitch" or (found is not None and not self._doubted_event)
        ):
            self.book.doubted(None)
            self._doubted_event = False
        if sent.id and sent.id != self.last_event_id:
            self.last_event_id = sent.id
            self._dirty = True
        self._dirty = self._dirty or found is not None
        return found

    def handled(self, message: Message | None) -> None:
        """Note that the caller is done with a message: only now does the state on disk move past it."""
        urgent = isinstance(message, VerifiedEvent)
        if urgent or self._monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the state, if there is a file for it and anything new.

        Raises:
            StateError: it can't be written.
        """
        if self._state is None or not self._dirty or not self._may_save():
            return
        write_state(self._state, self.wish.lane, self.wish.rollout, self.last_event_id, self.book.known())
        self._dirty, self._saved_at = False, self._monotonic()

    def failed(self) -> float:
        """Note a connection that ended; return how many seconds to wait before the next.

        Raises:
            ClientError: `connects_max` in a row have failed.
        """
        self._failures += 1
        most = self.wish.connects_max
        if most is not None and self._failures >= most:
            raise ClientError(f"{self._failures} connections in a row to {self.url} failed: is Cordon up there?")
        # Jitter, or a thousand subscribers come back in the same instant.
        longest = min(self._retry_seconds * 2 ** min(self._failures - 1, 10), BACKOFF_SECONDS_MAX)
        return random.uniform(longest / 2, longest)

    def decision(self, rollout: str, target: Scope) -> Effective:
        """Return what to do with a part of a rollout now; any thread.

        Raises:
            UnknownRolloutError: nothing of it has come.
            UnknownPartError: the target can't be a part of it.
        """
        return self.book.decision(rollout, target, self._clock.now_ms(), self._monotonic())

    def _recall(self, kept: Kept) -> None:
        try:
            for event, lease in kept.rollouts:
                self.book.recall(event, lease, self._clock.now_ms(), self._monotonic())
        except SwitchError as error:
            raise StateError(f"the state in {self._state} contradicts itself: {error}") from error

    def _event(self, data: str) -> VerifiedEvent | None:
        verified = self._opened(open_event, data)
        self._require(verified.switch.rollout, verified.event.id)
        return verified if self.book.take_event(verified) else None

    def _lease(self, data: str) -> VerifiedLease | None:
        verified = self._opened(open_lease, data)
        self._require(verified.lease.rollout, verified.event.id)
        try:
            return verified if self.book.take_lease(verified, self._clock.now_ms(), self._monotonic()) else None
        except LeaseUselessError as error:
            # Genuine and late: whatever is held goes on until its own end.
            _LOGGER.info("a lease was ignored: %s", error)
            return None

    def _opened(self, opened: Callable[[Envelope, PublicKeys], _Opened], data: str) -> _Opened:
        envelope = parse_envelope(data.encode())
        try:
            return opened(envelope, self._keys)
        except UnknownKeyError:
            if self._key_file is None:
                raise
        # Somebody the caller trusts may have put the next key there meanwhile; the server can't.
        try:
            self._keys.learn(PublicKeys.parse(self._key_file.read_bytes()))
        except OSError as error:
            raise UnknownKeyError(f"the keys in {self._key_file} can't be read again: {error.strerror}") from error
        return opened(envelope, self._keys)

    def _require(self, rollout: str, name: str) -> None:
        if self.wish.rollout is not None and rollout != self.wish.rollout:
            raise SwitchError(f"asked for {self.wish.rollout}, got {name}: this server mixes up rollouts")
