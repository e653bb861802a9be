"""A network between clients and one Kafka broker that fails as told: refuses, stalls, cuts, loses what it carries.

The broker has to advertise the proxy's port. Frames from clients are taken apart, so that a test can say which request
is hit by its API key.
"""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from deploy.kafka.broker import LocalKafka

PRODUCE, OFFSET_COMMIT, ADD_PARTITIONS, END_TRANSACTION, TRANSACTION_OFFSETS = 0, 8, 24, 26, 28
HOST = "127.0.0.1"
# Below the range of ports that the kernel gives to outgoing connections: nobody takes one while it does not listen.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a port that nobody listens on."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as one:
            try:
                one.bind((HOST, port))
            except OSError:
                continue
            return port


class FlakyProxy:
    """Forwards connections to a port of this machine, until told otherwise."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._lost: dict[tuple[str, int], int] = {}
        self._moving = threading.Event()
        self._moving.set()
        self._holding = threading.Event()
        self._held_key: int | None = None
        self._release = threading.Event()
        self._losing = threading.Event()
        self.port = free_port()
        self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()

    def accept(self) -> None:
        """Take connections again, and let the ones that stalled go on."""
        with self._lock:
            if self._listener is None:
                listener = socket.create_server((HOST, self.port))
                self._listener = listener
                threading.Thread(target=self._listen, args=(listener,), daemon=True).start()
        self._moving.set()

    def refuse(self) -> None:
        """Cut what is connected and refuse new connections."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Wakes the thread that accepts; closing alone would not.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._moving.set()
        self._release.set()
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def stall(self) -> None:
        """Forward nothing more, in either direction, and keep everything open."""
        self._moving.clear()

    def lose_request(self, key: int, times: int = 1) -> None:
        """Cut the connection in place of forwarding the next request of that kind."""
        self._losing.clear()
        self._lost["request", key] = times

    def lose_answer(self, key: int, times: int = 1) -> None:
        """Cut the connection in place of forwarding the answer to the next request of that kind."""
        self._losing.clear()
        self._lost["answer", key] = times

    def wait_lost(self, seconds: float) -> bool:
        """Wait until something was lost as ordered."""
        return self._losing.wait(seconds)

    def hold(self, key: int) -> None:
        """Keep the next request of that kind back until `release`, whatever becomes of its client."""
        self._release.clear()
        self._holding.clear()
        self._held_key = key

    def wait_held(self, seconds: float) -> bool:
        """Wait until a request is kept back."""
        return self._holding.wait(seconds)

    def release(self) -> None:
        """Forward what was kept back."""
        self._release.set()

    def forget(self) -> None:
        """Lose nothing that was ordered to be lost and was not yet."""
        self._lost.clear()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection((HOST, self._target_port), timeout=5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            link = _Link(self, client, broker)
            with self._lock:
                self._links.add(link)
            link.start()

    def on_request(self, key: int) -> str:
        """Return what becomes of a request: `forward`, `cut` or `cut at answer`; may hold it back first."""
        self._moving.wait()
        if self._held_key == key:
            self._held_key = None
            self._holding.set()
            self._release.wait()
            return "forward"
        for kind, fate in (("request", "cut"), ("answer", "cut at answer")):
            if self._lost.get((kind, key), 0) > 0:
                self._lost[kind, key] -= 1
                return fate
        return "forward"

    def on_answer(self) -> None:
        """Wait while the network stalls."""
        self._moving.wait()

    def lost(self) -> None:
        """Note that something was lost."""
        self._losing.set()

    def ended(self, link: "_Link") -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One client's connection and its twin to the broker."""

    def __init__(self, proxy: FlakyProxy, client: socket.socket, broker: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._drop_answers = False

    def start(self) -> None:
        threading.Thread(target=self._requests, daemon=True).start()
        threading.Thread(target=self._answers, daemon=True).start()

    def cut(self) -> None:
        for one in (self._client, self._broker):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _requests(self) -> None:
        try:
            while frame := self._frame():
                fate = self._proxy.on_request(int.from_bytes(frame[4:6], "big"))
                if fate == "cut":
                    self._proxy.lost()
                    return
                self._drop_answers = fate == "cut at answer"
                self._broker.sendall(frame)
        except OSError:
            pass
        finally:
            self.cut()
            self._broker.close()

    def _frame(self) -> bytes:
        head = self._exactly(4)
        return head + self._exactly(int.from_bytes(head, "big")) if head else b""

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._client.recv(size - len(data))
            if not more:
                return b""
            data += more
        return data

    def _answers(self) -> None:
        try:
            while data := self._broker.recv(1 << 16):
                self._proxy.on_answer()
                if self._drop_answers:
                    self._proxy.lost()
                    break
                self._client.sendall(data)
        except OSError:
            pass
        finally:
            self.cut()
            self._client.close()
            self._proxy.ended(self)


@contextmanager
def broker_behind_proxy() -> Iterator[tuple[LocalKafka, FlakyProxy]]:
    """Yield a broker that tells its clients to come through the proxy, and the proxy."""
    port = free_port()
    with FlakyProxy(port) as proxy:
        advertised = f"PLAINTEXT://{HOST}:{proxy.port}"
        with LocalKafka(port=port, properties={"advertised.listeners": advertised}) as kafka:
            yield kafka, proxy
