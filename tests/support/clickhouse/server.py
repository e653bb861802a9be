"""The test server as a process: a native-protocol port, a control port for faults, chdb behind them.

Run as `python -m support.clickhouse --data FOLDER`; prints `port N control M` when it answers. chdb allows one process
per folder and one folder per process, so tests that also use chdb themselves need it in a process of its own.
"""

import argparse
import contextlib
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from support.clickhouse.connection import Account, Connection
from support.clickhouse.engine import Engine
from support.clickhouse.faults import Faults

CLOSE_SECONDS_MAX = 2.0


class Server:
    """Accepts clients, a thread each, until it is closed."""

    def __init__(
        self, engine: Engine, faults: Faults, account: Account, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.faults = faults
        self._engine = engine
        self._account = account
        self._tls = tls
        self._refusing = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener, self._serve), daemon=True).start()
        control = socket.create_server(("127.0.0.1", 0))
        self.control_port: int = control.getsockname()[1]
        threading.Thread(target=self._accept, args=(control, self._control), daemon=True).start()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._refusing.is_set():
            client.close()
            return
        self.faults.connected()
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            self._open.add(client)
            Connection(client, self._engine, self.faults, self._account).serve()
        except OSError:
            # A client without TLS, or one that left; nothing to tell it.
            return
        finally:
            self._open.discard(client)
            client.close()

    def _control(self, client: socket.socket) -> None:
        with client, client.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                try:
                    answer = self._obey(line.strip())
                except ValueError as error:
                    answer = f"error {error}"
                lines.write(f"{answer}\n")
                lines.flush()

    def _obey(self, line: str) -> str:
        if line == "refuse":
            self._refusing.set()
            for client in list(self._open):
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        elif line == "admit":
            self._refusing.clear()
        elif line == "clear":
            self.faults.clear()
        elif line == "count":
            return f"{self.faults.inserts} {self.faults.connections}"
        else:
            self.faults.order(line)
        return "ok"


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="support.clickhouse")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--certificate", type=Path, default=None)
    parser.add_argument("--key", type=Path, default=None)
    parser.add_argument("--config", type=Path, default=None)
    options = parser.parse_args(arguments)
    tls = None
    if options.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    engine = Engine(options.data, options.config)
    server = Server(engine, Faults(), Account(options.user, options.password), options.port, tls)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    sys.stdout.write(f"port {server.port} control {server.control_port}\n")
    sys.stdout.flush()
    ended.wait()
    # What chdb still does for a client that has left may take it half a minute; the folder is no longer asked for.
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS_MAX)
    os._exit(0)
