"""A synchronous subscriber to the kill-switch stream that believes nothing it has not verified.

It reconnects with backoff and Last-Event-ID, so a cut or a restart of Cordon costs nothing but time. Invariants: every
`Switch` it yields was signed by a known key, is of the lane asked for, and comes once, in order, after the one before
it; an event that fails a check is raised, never skipped.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import httpx2

from ingest.topics import LIVE_LANE
from signals.events import Switch
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import Chain, VerifiedEvent, open_event, parse_envelope

_LOGGER = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 40.0
BACKOFF_SECONDS_MAX = 30.0
EVENT_BYTES_MAX = 1 << 20
EVENT_NAME = "killswitch"
_REFUSALS_FOR_GOOD = frozenset({400, 401, 403, 404})


class ClientError(Exception):
    """The client can't go on; the message says why."""


class RefusedError(ClientError):
    """Cordon refuses this subscription for good: the token, the rollout or the cursor is wrong."""


class KillSwitchClient:
    """Subscribes to one lane's kill-switch events; used by one thread.

    What it knows lives in memory: with a new process, events since the last one are read by `last_event_id` or with
    `from_start`. A state on disk and the lease are not part of it yet.
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
        silence_seconds: float = SILENCE_SECONDS,
        connects_max: int | None = None,
        on_connect: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; `events` connects.

        Args:
            url: of the streams listener, for instance `http://127.0.0.1:8401`.
            keys: whose signatures are believed. Get them from somebody you trust, once; a set fetched from the server
                that also sends the events proves only that it is the same server.
            token: sent as `Authorization: Bearer`.
            rollout: the only rollout wanted; None wants all.
            lane: the only lane believed.
            from_start: begin with the first event ever instead of the next one.
            last_event_id: begin right behind this one; wins over `from_start`.
            silence_seconds: a connection without a byte for so long is dead; heartbeats come every 15 s.
            connects_max: failed connections in a row after which `events` raises; None tries for ever.
            on_connect: called each time the stream is open.
        """
        self.last_event_id = last_event_id
        self._url = f"{url.rstrip('/')}/v1/killswitch/stream"
        self._keys = keys
        self._rollout = rollout
        self._headers = {"accept": "text/event-stream"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._start = "start" if from_start else "latest"
        self._chain = Chain(lane, from_start=from_start and last_event_id is None)
        self._connects_max = connects_max
        self._on_connect = on_connect or (lambda: None)
        self._retry_seconds = 1.0
        self._closed = threading.Event()
        self._http = httpx2.Client(timeout=httpx2.Timeout(CONNECT_SECONDS, read=silence_seconds))

    def __enter__(self) -> "KillSwitchClient":
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """End the subscription; `events` ends at the next byte or heartbeat."""
        self._closed.set()
        self._http.close()

    def events(self) -> Iterator[Switch]:
        """Yield every verified event in order, for ever, reconnecting as needed.

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
        failures = 0
        while not self._closed.is_set():
            try:
                for verified in self._connection():
                    failures = 0
                    if verified is not None:
                        yield verified
            except (httpx2.TransportError, httpx2.StreamError) as error:
                if self._closed.is_set():
                    return
                _LOGGER.warning("the kill-switch stream broke, resuming from %s: %s", self.last_event_id, error)
            failures += 1
            if self._connects_max is not None and failures >= self._connects_max:
                raise ClientError(f"{failures} connections in a row to {self._url} failed: is Cordon up there?")
            self._closed.wait(self._backoff_seconds(failures))

    def _connection(self) -> Iterator[VerifiedEvent | None]:
        """Yield what one connection brings, None for each sign of life that is no new event."""
        query = {"from": self._start} | ({"rollout": self._rollout} if self._rollout else {})
        headers = self._headers | ({"last-event-id": self.last_event_id} if self.last_event_id else {})
        with self._http.stream("GET", self._url, params=query, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                if response.status_code in _REFUSALS_FOR_GOOD:
                    raise RefusedError(f"{self._url} answered {response.status_code}: {response.text[:500]}")
                return
            self._on_connect()
            for sent in httpx2.EventSource(response, EVENT_BYTES_MAX):
                if sent.retry is not None:
                    self._retry_seconds = min(sent.retry / 1000, BACKOFF_SECONDS_MAX)
                verified = self._verify(sent.data) if sent.event == EVENT_NAME and sent.data else None
                # Only now: an event that was refused is read again after a reconnect.
                self.last_event_id = sent.id or self.last_event_id
                yield verified

    def _verify(self, data: str) -> VerifiedEvent | None:
        verified = open_event(parse_envelope(data.encode()), self._keys)
        if self._rollout is not None and verified.switch.rollout != self._rollout:
            raise SwitchError(f"asked for {self._rollout}, got {verified.event.id}: this server mixes up rollouts")
        return verified if self._chain.accept(verified) else None

    def _backoff_seconds(self, failures: int) -> float:
        # Jitter, or a thousand subscribers come back in the same instant.
        most = min(self._retry_seconds * 2 ** min(failures - 1, 10), BACKOFF_SECONDS_MAX)
        return random.uniform(most / 2, most)
