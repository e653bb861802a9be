"""Subscribers of the kill-switch stream: one that reads every event, and one that never reads at all."""

import base64
import socket
import threading
import time
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec

READ_SECONDS = 60.0


class Listener:
    """Reads the stream in a thread of its own until it ends.

    Attributes:
        envelopes: the signed events, as they came.
        ended_at: monotonic time at which the stream ended; None while it is open.
    """

    def __init__(self, streams_url: str, headers: dict[str, str], query: str = "from=start") -> None:
        """Subscribe; returns once the stream is open."""
        self.envelopes: list[bytes] = []
        self.ended_at: float | None = None
        self._opened = threading.Event()
        self._close = threading.Event()
        self._url = f"{streams_url}/v1/killswitch/stream?{query}"
        self._headers = headers
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._opened.wait(READ_SECONDS), "the stream did not open"

    def _read(self) -> None:
        try:
            with (
                httpx2.Client(timeout=READ_SECONDS, trust_env=False) as client,
                client.stream("GET", self._url, headers=self._headers) as answer,
            ):
                for line in answer.iter_lines():
                    self._opened.set()
                    if line.startswith("data: "):
                        self.envelopes.append(line.removeprefix("data: ").encode())
                    if self._close.is_set():
                        return
        except httpx2.HTTPError:
            # The server went away, by our doing: what matters is when, and what had come before.
            pass
        finally:
            self.ended_at = time.monotonic()
            self._opened.set()

    @property
    def switches(self) -> list[dict[str, Any]]:
        """The data of the events, unverified."""
        return [switch_of(envelope) for envelope in list(self.envelopes)]

    def of(self, rollout: str) -> list[dict[str, Any]]:
        """Return the data of one rollout's events."""
        return [switch for switch in self.switches if switch["rollout"] == rollout]

    def ended_within(self, seconds: float) -> bool:
        """Tell whether the stream has ended, waiting at most so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def leave(self) -> None:
        """Close at the next line; the thread is a daemon, so nobody waits for one."""
        self._close.set()


def switch_of(envelope: bytes) -> dict[str, Any]:
    """Return the data of a signed event, without any check."""
    payload = base64.b64decode(msgspec.json.decode(envelope)["payload"])
    data: dict[str, Any] = msgspec.json.decode(payload)["data"]
    return data


class DeafSubscribers:
    """Streams that were asked for and are never read."""

    def __init__(self, streams_url: str, headers: dict[str, str], count: int) -> None:
        """Open them, with receive buffers as small as the system allows."""
        place = urlsplit(streams_url)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        request = "\r\n".join(
            ["GET /v1/killswitch/stream?from=start HTTP/1.1", f"host: {place.netloc}", *lines, "", ""]
        )
        self._sockets = []
        for _ in range(count):
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            opened.connect((place.hostname, place.port))
            opened.sendall(request.encode())
            self._sockets.append(opened)

    def __enter__(self) -> "DeafSubscribers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._sockets:
            opened.close()
