"""A real Apache Kafka on loopback: one broker, or a few of them as a cluster, each a child process of this one.

Each broker keeps its ports and its data over `kill` and `start`, so that a test can take it away and give it back.
No broker outlives the process that started it (`deploy.kafka.leash`).
"""

import base64
import random
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.node import START_SECONDS_MAX, Broker, KafkaStartError, broker_ids
from deploy.kafka.properties import CONTROLLER, PLAINTEXT, NodePorts, render
from deploy.kafka.security import LISTENERS, Security

__all__ = ["Broker", "KafkaStartError", "LocalKafka", "LocalKafkaCluster"]

START_ATTEMPTS = 4
# Below the range of ports that the kernel gives to outgoing connections: nobody takes a port while its broker is down.
_PORTS = range(20_000, 32_000)


class LocalKafkaCluster:
    """Some brokers that form one cluster, each of them also a controller.

    Attributes:
        nodes: the brokers, by number less one.
        security: certificates and users of the secured listeners; None where there are none.
    """

    def __init__(
        self,
        count: int = 3,
        directory: Path | None = None,
        *,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        security: Security | None = None,
        java_options: Sequence[str] = (),
    ) -> None:
        """Prepare the cluster; nothing runs before `start`.

        Args:
            count: brokers.
            directory: holds their data and output, and stays; None for a temporary one that `close` removes.
            port: of the first broker's plaintext listener; 0 for any free one.
            properties: broker properties that win over the chosen ones.
            security: adds the listeners TLS, MTLS, SASL and SASLTLS.
            java_options: for the brokers' Java, instead of the class archive's.
        """
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="cordon-kafka-"))
        self.security = security
        self._properties = dict(properties or {})
        self._port = port
        self._cluster_id = _cluster_id()
        self._first_start = True
        self.nodes = [
            Broker(number, self.directory / f"broker-{number}", java_options) for number in range(1, count + 1)
        ]

    @property
    def bootstrap(self) -> str:
        """The plaintext addresses of all brokers, as Kafka clients want them."""
        return self.bootstrap_of(PLAINTEXT)

    def bootstrap_of(self, listener: str) -> str:
        """Return the addresses of one listener: PLAINTEXT, TLS, MTLS, SASL or SASLTLS."""
        return ",".join(f"127.0.0.1:{node.ports.ports[listener]}" for node in self.nodes)

    def start(self) -> Self:
        """Start every broker that does not run, and return when all of them answer.

        Raises:
            KafkaMissingError: this machine lacks what a broker needs.
            KafkaStartError: a broker did not come up.
        """
        for attempt in range(START_ATTEMPTS):
            try:
                if self._first_start:
                    self._lay_out()
                for node in self.nodes:
                    node.launch()
                self._wait_ready()
            except KafkaStartError as error:
                self.kill()
                # Only before the first start may the ports change: afterwards somebody knows them.
                taken = "Address already in use" in str(error) or "BindException" in str(error)
                if not (taken and self._first_start and self._port == 0 and attempt + 1 < START_ATTEMPTS):
                    raise
            else:
                self._first_start = False
                return self
        raise AssertionError("the loop above returns or raises")

    def stop(self) -> None:
        """Ask every broker to end, and return when all have."""
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        """SIGKILL every broker."""
        for node in self.nodes:
            node.kill()

    def close(self) -> None:
        """Kill what runs, and remove the data of a temporary cluster."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start the brokers."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the brokers and clean up."""
        self.close()

    def _lay_out(self) -> None:
        listeners = [PLAINTEXT, *(LISTENERS if self.security else ()), CONTROLLER]
        free = iter(_free_ports(len(listeners) * len(self.nodes)))
        for node in self.nodes:
            ports = {listener: next(free) for listener in listeners}
            if self._port and node is self.nodes[0]:
                ports[PLAINTEXT] = self._port
            node.ports = NodePorts(node.number, ports)
        for node in self.nodes:
            text = render(
                node.ports,
                [other.ports for other in self.nodes],
                str(node.data),
                security=self.security,
                extra=self._properties,
            )
            node.prepare(text, self._cluster_id, self.security.format_arguments() if self.security else [])

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        for node in self.nodes:
            node.wait_listening(deadline)
        while True:
            for node in self.nodes:
                node.require_running()
            if len(broker_ids(self.bootstrap)) >= len(self.nodes):
                return
            if time.monotonic() > deadline:
                raise KafkaStartError(f"not all brokers joined within {START_SECONDS_MAX:.0f} s: see {self.directory}")
            time.sleep(0.1)


class LocalKafka(LocalKafkaCluster):
    """One broker."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        security: Security | None = None,
        java_options: Sequence[str] = (),
    ) -> None:
        """Prepare the broker; nothing runs before `start`. The arguments are those of `LocalKafkaCluster`."""
        super().__init__(1, directory, port=port, properties=properties, security=security, java_options=java_options)

    def pause(self) -> None:
        """Stop the broker where it stands: it holds its connections and answers nothing."""
        self.nodes[0].pause()

    def resume(self) -> None:
        """Let a paused broker go on."""
        self.nodes[0].resume()


def _cluster_id() -> str:
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # The tool that formats the storage would take it for an option.
        if not made.startswith("-"):
            return made


def _free_ports(count: int) -> list[int]:
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            candidate = socket.socket()
            held.append(candidate)
            port = random.choice(_PORTS)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    finally:
        for one in held:
            one.close()
    return ports
