"""A connection that fails leaves no socket behind: file descriptors are few, and an outage is long."""

import gc
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.net.selector import NetworkSelector

from ingest.log.kafka.closing import ClosingManager


def open_sockets() -> int:
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(link.readlink()))
        except OSError:
            # The folder's own descriptor is gone by now.
            continue
    return sum(target.startswith("socket:") for target in targets)


@pytest.fixture
def hanging_up() -> Iterator[int]:
    """Listen on a port and hang up on everybody; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def hang_up() -> None:
        while True:
            connection, _ = listener.accept()
            connection.close()
            if ended.is_set():
                return

    thread = threading.Thread(target=hang_up)
    thread.start()
    yield listener.getsockname()[1]
    ended.set()
    socket.create_connection(listener.getsockname()).close()
    thread.join()
    listener.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_failed_connection_is_closed(hanging_up: int, tls: bool) -> None:
    net = NetworkSelector()
    port = hanging_up if tls else 1
    security = {"security_protocol": "SSL", "ssl_context": ssl.create_default_context()} if tls else {}
    gc.collect()
    before = open_sockets()
    # Without the collector: it is what would close them otherwise, some time.
    gc.disable()
    try:
        manager = ClosingManager(net, bootstrap_servers=[f"127.0.0.1:{port}"], reconnect_backoff_ms=1, **security)
        attempt = manager.bootstrap_async(timeout_ms=300)
        deadline = time.monotonic() + 10
        while not attempt.is_done and time.monotonic() < deadline:
            net.poll(timeout_ms=50)
        assert attempt.exception is not None
        assert open_sockets() == before
    finally:
        gc.enable()
        manager.close()
        net.close()
