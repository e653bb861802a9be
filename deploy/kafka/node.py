"""One broker process: formatted, started, killed, paused, started again on its data and ports."""

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.kafka import archive
from deploy.kafka.distribution import classpath
from deploy.kafka.leash import LeashedProcess
from deploy.kafka.properties import PLAINTEXT, NodePorts

START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 20.0
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


class Broker:
    """One broker process of a cluster.

    Attributes:
        number: its node id, from 1.
        data: its log folder.
        ports: of its listeners; set when the cluster starts for the first time.
    """

    def __init__(self, number: int, directory: Path, java_options: Sequence[str] = ()) -> None:
        """Prepare the broker; the cluster gives it ports and formats it."""
        self._java_options = list(java_options)
        self.number = number
        self.data = directory / "data"
        self.ports = NodePorts(number)
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
            command = [*_java(self._java_options), "kafka.Kafka", str(self._directory / "server.properties")]
            self._process = LeashedProcess(command, self._directory / "output.log")

    def start(self) -> None:
        """Start the broker again on its data and ports, and return when the cluster sees it.

        Raises:
            KafkaStartError: it did not come up.
        """
        self.launch()
        deadline = time.monotonic() + START_SECONDS_MAX
        self.wait_listening(deadline)
        while self.number not in broker_ids(self.bootstrap):
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


def broker_ids(bootstrap: str) -> set[int]:
    """Return the numbers of the brokers that answer at an address; none while it does not answer."""
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


def _java(more: Sequence[str] = ()) -> list[str]:
    jars = classpath()
    # A Java that writes an archive takes none.
    return [*_JAVA, *(more or archive.options()), "-cp", jars]
