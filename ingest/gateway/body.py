"""Receive a request's body, bounded while it arrives.

The invariant: a connection never holds more than the largest body, all of them together never more than the gateway
may hold, and none longer than `body_seconds_max`.
"""

import asyncio

from starlette.types import Receive, Scope

from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Refusal


class ClientGoneError(Exception):
    """The client hung up before its body was complete: there is nobody to answer."""


class BodyReader:
    """Receives bodies within the bounds of one process."""

    def __init__(self, body_bytes_max: int, held_bytes_max: int, body_seconds_max: int) -> None:
        """Bound one body and all bodies together, in bytes, and the time each may take, in seconds."""
        self._body_bytes_max = body_bytes_max
        self._held_bytes_max = held_bytes_max
        self._body_seconds_max = body_seconds_max
        self._held_bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body as sent.

        Raises:
            RequestRefusedError: too large, too slow, or too much is being received already.
            ClientGoneError: the client hung up.
        """
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > self._body_bytes_max):
                raise self._too_large()
        try:
            async with asyncio.timeout(self._body_seconds_max):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body: bytes = message.get("body", b"")
                if message.get("more_body", False):
                    return await self._rest(body, receive)
        except TimeoutError:
            detail = f"the body did not arrive within {self._body_seconds_max} s"
            raise RequestRefusedError(Refusal.BAD_REQUEST, detail) from None
        if len(body) > self._body_bytes_max:
            raise self._too_large()
        return body

    async def _rest(self, first: bytes, receive: Receive) -> bytes:
        parts = [first]
        size = len(first)
        self._held_bytes += size
        try:
            while True:
                if size > self._body_bytes_max:
                    raise self._too_large()
                if self._held_bytes > self._held_bytes_max:
                    raise RequestRefusedError(Refusal.OVERLOADED, "too many bodies are being received: try later", 2)
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._held_bytes += len(part)
                if not message.get("more_body", False):
                    break
            if size > self._body_bytes_max:
                raise self._too_large()
            return b"".join(parts)
        finally:
            self._held_bytes -= size

    def _too_large(self) -> RequestRefusedError:
        return RequestRefusedError(
            Refusal.BODY_TOO_LARGE, f"a body may have {self._body_bytes_max} bytes as sent: post fewer reports at once"
        )
