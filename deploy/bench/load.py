"""A load generator: many keep-alive connections, requests built beforehand, one thread.

It does no more than a send and a receive for each request, so that it takes little of the machine that it shares with
the gateway under test.
"""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit


def requests_of(url: str, token: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Return posts to `/v1/reports` as bytes to be sent."""
    host = urlsplit(url).netloc
    head = (
        f"POST /v1/reports HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


class _Connection:
    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = b""

    def send(self, request: bytes) -> None:
        self.request = request
        self.socket.setblocking(True)
        self.socket.sendall(request)
        self.socket.setblocking(False)

    def status(self) -> int:
        """Read one small answer and return its status code.

        Raises:
            ConnectionError: the server hung up.
        """
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the gateway closed a connection in the middle of the bench")
        return int(data[9:12])


def post_all(
    url: str, requests: Sequence[bytes], connections: int, requests_per_second: float | None = None
) -> tuple[float, Counter[int]]:
    """Send every request once over `connections` connections, and return the seconds it took and the status codes.

    Args:
        url: the reports listener.
        requests: as `requests_of` builds them.
        connections: how many requests are under way at once.
        requests_per_second: pace; None is as fast as they are answered.
    """
    parts = urlsplit(url)
    codes: Counter[int] = Counter()
    queue: Iterator[bytes] = iter(requests)
    selector = selectors.DefaultSelector()
    idle: list[_Connection] = [_Connection(parts.hostname or "", parts.port or 80) for _ in range(connections)]
    every = idle.copy()
    for connection in idle:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    started, sent, done = time.perf_counter(), 0, 0
    while done < len(requests):
        due = len(requests)
        if requests_per_second is not None:
            due = int((time.perf_counter() - started) * requests_per_second) + 1
        while idle and sent < min(due, len(requests)):
            idle.pop().send(next(queue))
            sent += 1
        for key, _ in selector.select(0.005):
            codes[key.data.status()] += 1
            done += 1
            idle.append(key.data)
    seconds = time.perf_counter() - started
    for connection in every:
        connection.socket.close()
    return seconds, codes
