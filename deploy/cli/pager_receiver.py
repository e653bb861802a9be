"""A receiver on loopback that stands for every vendor's PagerDuty: keeps what it is sent, and when.

For `make demo-pagers` and tests. It speaks what the Events API v2 documents (202 with the dedup key), on a path of its
own for each vendor, so that who was told is seen by the address. Invariant: it knows nothing of Cordon.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

BODY_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """One post.

    Attributes:
        at_ms: when it came, milliseconds since the epoch.
        service: the first part of the path: whose address it was.
        path: the rest of it.
        body: what was posted.
    """

    at_ms: int
    service: str
    path: str
    body: dict[str, Any]


class Receiver:
    """What came so far; any thread."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._came = threading.Condition()
        self.url = ""

    @property
    def received(self) -> list[Received]:
        """Everything that came, in order."""
        with self._came:
            return list(self._received)

    def take(self, received: Received) -> None:
        """Keep a post."""
        with self._came:
            self._received.append(received)
            self._came.notify_all()

    def wait(self, action: str, timeout_seconds: float) -> Received | None:
        """Return the first post whose `event_action` is this, as soon as there is one; None when the time ran out."""
        deadline = time.monotonic() + timeout_seconds
        with self._came:
            while True:
                found = next((one for one in self._received if one.body.get("event_action") == action), None)
                left = deadline - time.monotonic()
                if found is not None or left <= 0:
                    return found
                self._came.wait(left)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listen on a free port of loopback while the block lasts."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = min(int(self.headers.get("content-length", "0")), BODY_BYTES_MAX)
            body = json.loads(self.rfile.read(size) or b"{}")
            service, _, path = self.path.lstrip("/").partition("/")
            receiver.take(Received(int(time.time() * 1000), service, path, body))
            said = {"status": "success", "message": "Event processed", "dedup_key": body.get("dedup_key", "")}
            answer = json.dumps(said).encode()
            self.send_response(202)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Say nothing: what came is printed by who asks."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="pager-receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
