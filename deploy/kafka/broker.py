"""A real Apache Kafka on loopback: one broker, or a few of them as a cluster, each a child process of this one.

Each broker keeps its ports and its data over `kill` and `start`, so that a test can take it away and give it back.
No broker outlives the process that started it (`deploy.kafka.leash`).
"""

import base64
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.kafka.distribution import classpath
from deploy.kafka.leash import LeashedProcess
from deploy.kafka.properties import CONTROLLER, PLAINTEXT, NodePorts, render
from deploy.kafka.security import LISTENERS, Security

START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 20.0
START_ATTEMPTS = 4
# Below the range of ports that the kernel gives to outgoing connections: nobody takes a port while its broker is down.
_PORTS = range(20_000, 32_000)
_JAVA = (
    "java",
    "-Xmx256m",
    "-Xms64m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    # Kafka's own use of log4j (changing levels at run time) complains without a configuration.
    "-Dlog4j2.level=OFF",
    "-Dlog4j2.StatusLogger.level=OFF",
)


class KafkaStartError(Exception):
    """The broker did not come up; the message holds the end of what it said."""


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
    ) -> None:
        """Prepare the cluster; nothing runs before `start`.

        Args:
            count: brokers.
            directory: holds their data and output, and stays; None for a temporary one that `close` removes.
            port: of the first broker's plaintext listener; 0 for any free one.
            properties: broker properties that win over the chosen ones.
            security: adds the listeners TLS, MTLS, SASL and SASLTLS.
        """
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="cordon-kafka-"))
        self.security = security
        self._properties = dict(properties or {})
        self._port = port
        self._cluster_id = _cluster_id()
        self._first_start = True
        self.nodes = [Broker(self, number + 1, self.directory / f"broker-{number + 1}") for number in range(count)]

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
            if _brokers_seen(self.bootstrap) >= len(self.nodes):
                return
            if time.monotonic() > deadline:
                raise KafkaStartError(f"not all brokers joined within {START_SECONDS_MAX:.0f} s: see {self.directory}")
            time.sleep(0.1)


class Broker:
    """One broker process of a cluster.

    Attributes:
        number: its node id, from 1.
        data: its log folder.
        ports: of its listeners; set when the cluster starts for the first time.
    """

    def __init__(self, cluster: LocalKafkaCluster, number: int, directory: Path) -> None:
        """Prepare the broker; the cluster gives it ports and formats it."""
        self.number = number
        self.data = directory / "data"
        self.ports = NodePorts(number)
        self._cluster = cluster
        self._directory = directory
        self._process: LeashedProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The plaintext address of this broker alone."""
        return f"127.0.0.1:{self.ports.ports[PLAINTEXT]}"

    @property
    def pid(self) -> int:
        """The process id; that of the last process when none runs."""
        return self._process.pid if self._process is not None else 0

    def prepare(self, properties: str, cluster_id: str, arguments: Sequence[str]) -> None:
        """Write the properties and format the storage where it is not formatted yet.

        Raises:
            KafkaStartError: the storage can't be formatted.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "server.properties"
        path.write_text(properties)
        if (self.data / "meta.properties").exists():
            return
        command = [*_java(), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(path), *arguments]
        done = subprocess.run(  # noqa: S603  # our own command line
            command, capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False
        )
        if done.returncode != 0:
            raise KafkaStartError(f"the storage of broker {self.number} can't be formatted: {done.stderr.strip()}")

    def launch(self) -> None:
        """Start the process unless it runs; it does not answer yet."""
        if self._process is None or not self._process.running():
            if self._process is not None:
                self._process.kill()
            command = [*_java(), "kafka.Kafka", str(self._directory / "server.properties")]
            self._process = LeashedProcess(command, self._directory / "output.log")

    def start(self) -> None:
        """Start the broker again on its data and ports, and return when the cluster sees it.

        Raises:
            KafkaStartError: it did not come up.
        """
        self.launch()
        deadline = time.monotonic() + START_SECONDS_MAX
        self.wait_listening(deadline)
        while self.number not in _broker_ids(self.bootstrap):
            self.require_running()
            if time.monotonic() > deadline:
                raise KafkaStartError(f"broker {self.number} did not join: {self.said()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask the broker to hand over what it leads and to end; kill it where that takes too long."""
        if self._process is not None:
            self._process.end(STOP_SECONDS_MAX)

    def kill(self) -> None:
        """SIGKILL the broker."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Stop the process where it stands: it holds its connections and answers nothing."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        if self._process is not None:
            self._process.signal(signal.SIGCONT)

    def wait_listening(self, deadline: float) -> None:
        """Return when the plaintext port takes connections.

        Raises:
            KafkaStartError: the process ended, or the time ran out.
        """
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports.ports[PLAINTEXT]), timeout=1).close()
            except OSError:
                self.require_running()
                if time.monotonic() > deadline:
                    raise KafkaStartError(f"broker {self.number} does not listen: {self.said()}") from None
                time.sleep(0.05)
            else:
                # Somebody else may sit on that port; then our process is about to find out and to end.
                self.require_running()
                return

    def require_running(self) -> None:
        """Raise with the end of its output if the process has ended.

        Raises:
            KafkaStartError: it has.
        """
        if self._process is None or not self._process.running():
            raise KafkaStartError(f"broker {self.number} ended: {self.said()}")

    def said(self) -> str:
        """Return the end of what the broker wrote."""
        output = self._directory / "output.log"
        return output.read_text(errors="replace")[-4000:] if output.exists() else "(nothing)"


class LocalKafka(LocalKafkaCluster):
    """One broker."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        security: Security | None = None,
    ) -> None:
        """Prepare the broker; nothing runs before `start`. The arguments are those of `LocalKafkaCluster`."""
        super().__init__(1, directory, port=port, properties=properties, security=security)

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


def _java() -> list[str]:
    return [*_JAVA, "-cp", classpath()]


def _broker_ids(bootstrap: str) -> set[int]:
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=5000)
    except (KafkaError, OSError):
        return set()
    try:
        return {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}
    except (KafkaError, OSError):
        return set()
    finally:
        admin.close()


def _brokers_seen(bootstrap: str) -> int:
    return len(_broker_ids(bootstrap))


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
