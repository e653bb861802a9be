"""Receive a request's body, bounded while it arrives.

The invariant: a connection never holds more than the largest body, all of them together never more than the gateway
may hold, and none longer than `body_seconds_max`.
"""

import asyncio
from typing import Any

from starlette.types import Receive

from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Refusal

_SWEEP_SECONDS = 0.5


class ClientGoneError(Exception):
    """The client hung up before its body was complete: there is nobody to answer."""


class BodyReader:
    """Receives bodies within the bounds of one process.

    Deadlines are kept in a table that one timer sweeps: a timer of its own for each body cost a sixth of the time of a
    small post.
    """

    def __init__(self, body_bytes_max: int, held_bytes_max: int, body_seconds_max: int) -> None:
        """Bound one body and all bodies together, in bytes, and the time each may take, in seconds."""
        self._body_bytes_max = body_bytes_max
        self._held_bytes_max = held_bytes_max
        self._body_seconds_max = body_seconds_max
        self._held_bytes = 0
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def read(self, content_length: bytes | None, receive: Receive) -> bytes:
        """Return the body as sent.

        Args:
            content_length: that header, if the client sent it.
            receive: gives the parts of the body.

        Raises:
            RequestRefusedError: too large, too slow, or too much is being received already.
            ClientGoneError: the client hung up.
        """
        declared = content_length or b"0"
        if not declared.isdigit() or int(declared[:20]) > self._body_bytes_max:
            raise self._too_large()
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._deadlines[task] = loop.time() + self._body_seconds_max
        if self._sweep is None:
            self._sweep = loop.call_later(_SWEEP_SECONDS, self._cancel_late, loop)
        try:
            return await self._parts(receive)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            detail = f"the body did not arrive within {self._body_seconds_max} s"
            raise RequestRefusedError(Refusal.BAD_REQUEST, detail) from None
        finally:
            self._deadlines.pop(task, None)
            self._late.discard(task)

    def _cancel_late(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, deadline in self._deadlines.items():
            if deadline > now:
                break
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._cancel_late, loop) if self._deadlines else None

    async def _parts(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._held_bytes += len(part)
                if size > self._body_bytes_max:
                    raise self._too_large()
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                if self._held_bytes > self._held_bytes_max:
                    raise RequestRefusedError(Refusal.OVERLOADED, "too many bodies are being received: try later", 2)
        finally:
            self._held_bytes -= size

    def _too_large(self) -> RequestRefusedError:
        return RequestRefusedError(
            Refusal.BODY_TOO_LARGE, f"a body may have {self._body_bytes_max} bytes as sent: post fewer reports at once"
        )
