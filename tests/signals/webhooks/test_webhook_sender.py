"""The sender against real sockets: what an answer means, what is never connected to, and that every post ends."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import pytest

from ingest.clock import DrivenClock
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.sender import Lookup, WebhookSender
from signals.delivery.webhooks.targets import TargetPolicy, parse_networks
from support.switches import START_MS

LOCAL = TargetPolicy(parse_networks("127.0.0.0/8"))
ANYWHERE_OUTSIDE = TargetPolicy()


@contextlib.asynccontextmanager
async def answering(answer: bytes, *, silent: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve one canned answer to every request on a free port; yields the port and what was asked."""
    asked: list[bytes] = []

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                asked.append(head + await reader.readexactly(length))
                if not silent:
                    writer.write(answer)
                    await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await asyncio.gather(*serving)


def found(*answers: Sequence[str]) -> Lookup:
    """Return a resolver that gives these addresses, one answer after the other, the last for ever."""
    left = list(answers)

    async def lookup(_host: str, _port: int) -> list[str]:
        return list(left.pop(0) if len(left) > 1 else left[0])

    return lookup


def post(
    url: str, policy: TargetPolicy = LOCAL, lookup: Lookup | None = None, *, times: int = 1, seconds: float = 5.0
) -> Callable[[], Coroutine[None, None, list[Result]]]:
    async def run() -> list[Result]:
        given = {} if lookup is None else {"lookup": lookup}
        async with WebhookSender(policy, DrivenClock(START_MS), seconds, **given) as sender:
            return [await sender.post(url, {"webhook-id": "r-1/1"}, b"{}") for _ in range(times)]

    return run


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = "".join(f"{header}\r\n" for header in (*headers, f"content-length: {len(body)}"))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


@pytest.mark.parametrize(
    ("said", "word", "asked_ms"),
    [
        (answer("200 OK"), "delivered", 0),
        (answer("204 No Content"), "delivered", 0),
        (answer("410 Gone"), "gone", 0),
        (answer("400 Bad Request"), "rejected", 0),
        (answer("302 Found", "location: http://127.0.0.1:1/"), "rejected", 0),
        (answer("429 Too Many Requests", "retry-after: 7"), "busy", 7000),
        (answer("429 Too Many Requests"), "busy", 0),
        (answer("503 Unavailable", "retry-after: Mon, 22 Jul 2024 04:10:00 GMT"), "busy", 60_000),
        (answer("503 Unavailable", "retry-after: soon"), "failed", 0),
        (answer("503 Unavailable"), "failed", 0),
        (answer("408 Request Timeout"), "failed", 0),
        (answer("500 Oh", body=b"x" * 100_000), "failed", 0),
        (b"no HTTP at all\r\n\r\n", "unreachable", 0),
    ],
)
def test_what_an_answer_means(said: bytes, word: str, asked_ms: int) -> None:
    async def run() -> Result:
        async with answering(said) as (port, _):
            return (await post(f"http://127.0.0.1:{port}/hook")())[0]

    result = asyncio.run(run())
    assert (result.word, result.retry_after_ms) == (word, asked_ms)


def test_a_post_carries_its_headers_and_body_and_keeps_its_connection() -> None:
    async def run() -> list[bytes]:
        async with answering(answer("200 OK")) as (port, asked):
            await post(f"http://127.0.0.1:{port}/hook?a=b", times=3)()
            return asked

    asked = asyncio.run(run())
    assert len(asked) == 3
    assert asked[0].startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert b"webhook-id: r-1/1\r\n" in asked[0]
    assert asked[0].endswith(b"\r\n\r\n{}")


def test_a_receiver_that_hangs_is_let_go_in_time() -> None:
    async def run() -> Result:
        async with answering(b"", silent=True) as (port, _):
            return (await post(f"http://127.0.0.1:{port}/", seconds=0.2)())[0]

    assert asyncio.run(run()).word == "timed_out"


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        result = asyncio.run(post(f"http://127.0.0.1:{bound.getsockname()[1]}/")())[0]
    assert result.word == "unreachable"


class Trap:
    """A listener on loopback that notes every connection: nothing may ever connect to it."""

    def __enter__(self) -> "Trap":
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def _accept(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                self._socket.accept()[0].close()
                self.connections += 1

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "receiver.example"])
def test_an_address_inside_is_never_connected_to_however_it_is_named(host: str) -> None:
    with Trap() as trap:
        url = f"https://{host}:{trap.port}/"
        result = asyncio.run(post(url, ANYWHERE_OUTSIDE, found(["127.0.0.1"]))())[0]
    assert result.word == "refused_target"
    assert "inside" in result.detail
    assert trap.connections == 0


def test_a_name_that_leads_outside_and_inside_is_refused_as_a_whole() -> None:
    with Trap() as trap:
        url = f"https://receiver.example:{trap.port}/"
        result = asyncio.run(post(url, ANYWHERE_OUTSIDE, found(["8.8.8.8", "127.0.0.1"]))())[0]
    assert (result.word, trap.connections) == ("refused_target", 0)


def test_a_name_that_leads_somewhere_else_by_the_time_of_the_connect_is_refused() -> None:
    """DNS rebinding: whatever the name led to when the webhook was made, the address of this very connect counts."""

    async def run(port: int) -> list[Result]:
        lookup = found(["8.8.8.8"], ["127.0.0.1"])
        assert await lookup("receiver.example", port) == ["8.8.8.8"]
        return await post(f"https://receiver.example:{port}/", ANYWHERE_OUTSIDE, lookup)()

    with Trap() as trap:
        results = asyncio.run(run(trap.port))
    assert (results[0].word, trap.connections) == ("refused_target", 0)


def test_plain_http_goes_to_listed_networks_only() -> None:
    with Trap() as trap:
        url = f"http://receiver.example:{trap.port}/"
        result = asyncio.run(post(url, TargetPolicy(parse_networks("10.0.0.0/8")), found(["127.0.0.1"]))())[0]
    assert (result.word, trap.connections) == ("refused_target", 0)


def test_a_name_that_has_no_address_is_unreachable() -> None:
    async def nowhere(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    result = asyncio.run(post("https://receiver.example/", LOCAL, nowhere)())[0]
    assert result.word == "unreachable"
