"""Server-sent events over ASGI: one open stream from its first byte to its last.

Between the hub's shared frames and one subscriber's connection. A subscriber that resumes reads the log until it has
reached the hub's place and then walks with the hub. Invariant: between the two no event is missed or sent twice.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.log.interface import Log, TopicPartition
from signals.delivery.cursor import encode_cursor
from signals.delivery.hub import StreamHub, Subscriber, encode_frame

RETRY_MS = 1000
_READ_RECORDS_MAX = 100
_SEND_SECONDS = 30.0
_READERS_MAX = 8

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    # Proxies in the manner of nginx hold answers back unless they are told not to.
    "x-accel-buffering": "no",
}


class EventStreams:
    """Makes the responses of one hub."""

    def __init__(self, log: Log, topic: str, hub: StreamHub) -> None:
        """Take the log and topic that resuming subscribers read."""
        self._log = log
        self._topic = topic
        self._hub = hub
        self._readers = asyncio.Semaphore(_READERS_MAX)

    def response(self, subscriber: Subscriber, start: Mapping[int, int]) -> "EventStream":
        """Return the response that serves an admitted subscriber from `start`, the next offset by partition."""
        return EventStream(self._hub, subscriber, self._pieces(subscriber, dict(start)))

    async def _pieces(self, subscriber: Subscriber, place: dict[int, int]) -> AsyncIterator[bytes]:
        # An id without data still moves the browser's and our client's Last-Event-ID: a subscriber that is cut off
        # before its first event resumes where it began.
        yield b"retry: %d\nid: %s\n\n" % (RETRY_MS, encode_cursor(place).encode())
        async for piece in self._from_log(subscriber, place):
            yield piece
        subscriber.position = self._hub.head
        while not self._hub.closed:
            piece = self._hub.take(subscriber)
            if piece:
                yield piece
            else:
                await self._hub.changed(subscriber)

    async def _from_log(self, subscriber: Subscriber, place: dict[int, int]) -> AsyncIterator[bytes]:
        """Yield what lies between `place` and the hub's; when it returns, nothing was awaited since they were equal."""
        while place != self._hub.cursor and not self._hub.closed:
            behind = [partition for partition, offset in place.items() if offset < self._hub.cursor[partition]]
            if not behind:
                # The subscriber knows more than the hub has read yet; the hub is about to.
                await self._hub.changed(subscriber)
                continue
            for partition in behind:
                piece = await self._read(subscriber, place, partition, self._hub.cursor[partition])
                if piece:
                    yield piece

    async def _read(self, subscriber: Subscriber, place: dict[int, int], partition: int, end: int) -> bytes:
        source = TopicPartition(self._topic, partition)
        async with self._readers:
            records = await asyncio.to_thread(self._log.read, source, place[partition], _READ_RECORDS_MAX)
        records = [record for record in records if record.offset < end]
        frames = []
        for record in records:
            place[partition] = record.offset + 1
            if record.value is not None:
                frame = encode_frame(place, record)
                frames += [frame.data] if subscriber.wants(frame) else []
        if not records:
            place[partition] = end
        return b"".join(frames)


class EventStream(Response):
    """One stream: sends pieces until the hub closes, the subscriber goes, or it is cut."""

    def __init__(self, hub: StreamHub, subscriber: Subscriber, pieces: AsyncIterator[bytes]) -> None:
        """Take the admitted subscriber and what it gets."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._hub = hub
        self._subscriber = subscriber
        self._pieces = pieces

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        self._subscriber.cut = sending.cancel
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(self._subscriber)
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._pieces:
            message = {"type": "http.response.body", "body": piece, "more_body": True}
            if self._subscriber.position is None:
                # While it reads from the log the hub can't see how far behind it is; a stuck one is ended here.
                await asyncio.wait_for(send(message), _SEND_SECONDS)
            else:
                await send(message)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
