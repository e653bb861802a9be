"""A lane on a local Kafka for benches: its topics, its log, and worker processes that are Cordon's own.

The broker is on the same machine as everything it serves, as in the figures that must be reached.
"""

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import msgspec

from deploy.bench.server import Served
from deploy.kafka.broker import LocalKafka
from ingest.clock import WallClock
from ingest.gateway.tenants import TokenBook
from ingest.log.interface import Record, TopicPartition
from ingest.log.kafka import topics as kafka_topics
from ingest.log.kafka.admin import admin_client
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics

DEVICE_PARTITIONS = 16
STOP_SECONDS = 30.0
ROLES = ("report", "rollout", "operator")
_TOLD = (
    "kafka_bootstrap",
    "kafka_replication",
    "kafka_min_isr",
    "device_partitions",
    "keyed_partitions",
    "data_dir",
    "lane",
    "devices_max",
    "snapshot_seconds",
)


class BenchLane:
    """One lane on a broker.

    Attributes:
        settings: of the processes that run in it.
        log: this process's own way to it.
    """

    def __init__(self, kafka: LocalKafka, data: Path, **settings: object) -> None:
        """Make the lane's topics.

        Args:
            kafka: a running broker.
            data: folder for keys and tokens.
            settings: differing from those of a lane of 16 device partitions.
        """
        values: dict[str, object] = {
            "kafka_bootstrap": kafka.bootstrap,
            "kafka_replication": 1,
            "kafka_min_isr": 1,
            "device_partitions": DEVICE_PARTITIONS,
            "data_dir": str(data),
            "lane": f"bench-{uuid.uuid4().hex[:8]}",
        }
        self.settings: Settings = msgspec.convert(values | settings, Settings)
        self.topics = Topics(self.settings.lane, self.settings.device_partitions, self.settings.keyed_partitions)
        connection = connection_of(self.settings)
        wanted = kafka_topics.wanted(topic_specs(self.topics), replication=1, min_isr=1)
        with admin_client(connection) as admin:
            kafka_topics.apply(admin, wanted)
        self.log = KafkaLog(
            connection, topic_specs(self.topics), WallClock(), Metrics(), lane=self.settings.lane, client="bench"
        )

    def __enter__(self) -> Self:
        """Return the lane."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log and delete the topics, so that the next part finds a broker at rest."""
        self.log.close()
        with admin_client(connection_of(self.settings)) as admin:
            admin.delete_topics([spec.name for spec in topic_specs(self.topics)])

    def source(self, word: str, partition: int) -> TopicPartition:
        """Return a partition of one of the lane's topics."""
        return TopicPartition(self.topics.name(word), partition)

    def environment(self, **settings: object) -> dict[str, str]:
        """Return the environment of a process in this lane; `settings` win over the lane's."""
        told = {name: getattr(self.settings, name) for name in _TOLD} | settings
        return os.environ | {f"CORDON_{name.upper()}": _text(value) for name, value in told.items()}

    @contextmanager
    def grouping_worker(self, name: str = "worker-1", **settings: object) -> Iterator["subprocess.Popen[bytes]"]:
        """Run `cordon worker` with grouping alone while the block lasts; it may be killed within."""
        command = [sys.executable, "-m", "deploy.cli", "worker", "--roles", "grouping", "--name", name]
        given = self.environment(store=False, worker_port=0, **settings)
        # The command is our own.
        process = subprocess.Popen(command, env=given, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            yield process
        finally:
            end(process)

    @contextmanager
    def cordon(self, workers: int = 2, **settings: object) -> Iterator["Distributed"]:
        """Run `cordon up --distributed` in this lane while the block lasts."""
        data = Path(self.settings.data_dir)
        data.mkdir(parents=True, exist_ok=True)
        token = TokenBook.load(data / "tokens.toml").add(f"bench-{time.monotonic_ns()}", ["*"], list(ROLES))
        command = [sys.executable, "-m", "deploy.cli", "up", "--distributed", "--workers", str(workers)]
        ports = {"store": False, "worker_port": 0, "reports_port": 0, "streams_port": 0, "query_port": 0}
        given = self.environment(**ports, **settings)
        began = time.monotonic()
        # The command is our own.
        with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                urls = urls_of(process)
                seconds = time.monotonic() - began
                keys = data / "keys.json"
                keys.write_bytes(httpx2.get(f"{urls['streams']}/v1/keys", trust_env=False).content)
                yield Distributed(urls["reports"], urls["streams"], token, keys, data, process.pid, seconds, urls=urls)
            finally:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributed(Served):
    """A running `cordon up --distributed`.

    Attributes:
        urls: listeners by name.
    """

    urls: dict[str, str]

    def children(self) -> dict[int, str]:
        """Return the processes it consists of, itself included, by process id."""
        found = {self.pid: "supervisor"}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (OSError, ValueError):
                continue
            if parent == self.pid:
                kinds = [word for word in words if word in ("gateway", "worker", "signals")]
                found[int(folder.name)] = kinds[0] if kinds else words[0]
        return found


def urls_of(process: "subprocess.Popen[str]") -> dict[str, str]:
    """Read the URLs that a starting Cordon prints until it is ready.

    Raises:
        RuntimeError: it ended instead.
    """
    urls: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        words = line.split()
        if words == ["ready"]:
            return urls
        if len(words) == 2 and words[1].startswith("http"):
            urls[words[0]] = words[1]
    raise RuntimeError(f"cordon up --distributed ended with {process.wait()} before it was ready")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process in order, or else at once."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def metric_at(url: str, name: str) -> float:
    """Return a metric of a listener, by its full name with labels; 0 where it was never set."""
    text = httpx2.get(f"{url}/metrics", trust_env=False).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


class Tail:
    """Reads a partition on from where it was, a call at a time."""

    def __init__(self, log: KafkaLog, source: TopicPartition, offset: int = 0) -> None:
        """Begin at `offset`."""
        self._log = log
        self._source = source
        self._offset = offset

    def new(self) -> Iterator[Record]:
        """Yield what was appended since the last call."""
        while self._offset < self._log.bounds(self._source)[1]:
            records = self._log.read(self._source, self._offset, 5000)
            if not records:
                return
            self._offset = records[-1].offset + 1
            yield from records


def memory_bytes(pid: int) -> int:
    """Return a process's resident bytes; 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
