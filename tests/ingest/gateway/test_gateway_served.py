"""The application under the server that runs it in production: sockets, keep-alive, slow and hostile bodies."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server

from ingest.clock import WallClock
from ingest.events import encoder
from support.gateway_rig import Rig, check_in, run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def served(rig: Rig) -> AsyncIterator[int]:
    """Serve the gateway on a free port with granian, embedded in this event loop."""
    logging.getLogger("_granian").setLevel(logging.ERROR)
    port = free_port()
    server = Server(
        rig.app, port=port, interface=Interfaces.ASGINL, log_enabled=False, backpressure=512, websockets=False
    )
    await rig.gateway.start()
    task = asyncio.create_task(server.serve())
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        await rig.gateway.drain()
        server.stop()  # type: ignore[no-untyped-call]  # granian's embedding has no annotations
        await task


def now_report(rig: Rig, number: int = 0) -> bytes:
    now_ms = rig.clock.now_ms()
    return encoder.encode(check_in(number, at_ms=now_ms, boot_at_ms=now_ms))


def head(token: dict[str, str], extra: str) -> bytes:
    lines = [
        "POST /v1/reports HTTP/1.1",
        "host: gateway",
        "content-type: application/json",
        f"authorization: {token['authorization']}",
        extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def status_of(reader: asyncio.StreamReader) -> int:
    line = await asyncio.wait_for(reader.readline(), 10)
    return int(line.split()[1])


def test_many_clients_post_over_sockets(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock(), linger_ms=5)

    async def post() -> None:
        headers = {"content-type": "application/json"} | rig.token()
        async with served(rig) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answers = await asyncio.gather(
                *(client.post("/v1/reports", content=now_report(rig, i), headers=headers) for i in range(100))
            )
            assert {answer.status_code for answer in answers} == {202}
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            assert (await client.get("/readyz")).status_code == 200

    run(post())
    assert len(rig.reports("activity")) == 100


def test_a_slow_body_holds_up_nobody_and_is_taken_if_it_comes_in_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock())

    async def post() -> None:
        token = rig.token()
        body = now_report(rig)
        async with served(rig) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(token, f"content-length: {len(body)}") + body[:20])
            await asyncio.sleep(0.2)
            headers = {"content-type": "application/json"} | token
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.post("/v1/reports", content=now_report(rig, 1), headers=headers)
                assert answer.status_code == 202
            writer.write(body[20:])
            assert await status_of(reader) == 202
            writer.close()

    run(post())
    assert len(rig.reports("activity")) == 2


def test_a_body_that_never_ends_is_given_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock(), body_seconds_max=1)

    async def post() -> None:
        async with served(rig) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(rig.token(), "content-length: 1000") + b"[")
            assert await status_of(reader) == 400
            writer.close()

    run(post())
    assert rig.metrics.value("requests_refused_total", reason="bad_request") == 1


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_a_body_too_large_is_refused_before_it_is_read(tmp_path: Path, framing: str) -> None:
    rig = Rig(tmp_path, clock=WallClock(), body_bytes_max=65536)

    async def post() -> None:
        token = rig.token()
        async with served(rig) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if framing == "declared":
                writer.write(head(token, "content-length: 70000") + b" " * 100)
            else:
                writer.write(head(token, "transfer-encoding: chunked"))
                writer.write((b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 5)
            assert await status_of(reader) == 413
            writer.close()

    run(post())
    assert rig.metrics.value("requests_refused_total", reason="body_too_large") == 1


def test_a_client_that_hangs_up_halfway_leaves_nothing_behind(tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock())

    async def post() -> None:
        token = rig.token()
        async with served(rig) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head(token, "content-length: 1000") + b"[")
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.close()
            await asyncio.sleep(0.1)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                headers = {"content-type": "application/json"} | token
                answer = await client.post("/v1/reports", content=now_report(rig), headers=headers)
                assert answer.status_code == 202

    run(post())
    assert len(rig.reports("activity")) == 1
