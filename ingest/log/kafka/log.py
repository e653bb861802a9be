"""The log on Apache Kafka: `ingest.log.interface.Log`, put together from its parts.

```
append ──► Producer (one, idempotent)            read, bounds, wait ──► Reader (one a thread)
append, commit under a fence ──► FencedWriter (one a name, transactional)
commit, committed, check ──► groups, fences
```

Each part has a `Wire` of its own, so that a request that waits holds up nobody else. The invariant: the constructor
never connects, and no call takes longer than `kafka_timeout_ms`, but for `wait`, which may take its own time besides.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from ingest.clock import Clock
from ingest.log.interface import Entry, Fence, LogError, LogUnavailableError, Record, TopicPartition
from ingest.log.kafka import groups
from ingest.log.kafka.connection import Connection
from ingest.log.kafka.fences import Claims
from ingest.log.kafka.producer import Producer
from ingest.log.kafka.reading import Reader
from ingest.log.kafka.transactions import FencedWriter
from ingest.log.kafka.wire import CLOSED, Deadline, Wire
from ingest.log.specs import TopicSpecs, by_partition, require_key, spec_of
from ingest.metrics import Metrics
from ingest.topics import Topics

# What brokers take in one batch with the settings that `cordon topics` writes.
VALUE_BYTES_MAX = 1 << 20
KEY_BYTES_MAX = 1 << 14
CLOSE_SECONDS_MAX = 5.0

logger = logging.getLogger(__name__)


class KafkaLog:
    """A log on Apache Kafka; thread-safe."""

    def __init__(
        self,
        connection: Connection,
        specs: TopicSpecs,
        clock: Clock,
        metrics: Metrics,
        *,
        lane: str,
        client: str,
    ) -> None:
        """Prepare the log; nothing connects before the first call.

        Args:
            connection: where the brokers are.
            specs: the topics there are; they must have been created (`cordon topics apply`).
            clock: for the time in claims.
            metrics: `kafka_up` is kept.
            lane: names the run; part of the transactional ids.
            client: this process, as brokers and claims name it.
        """
        self._connection = connection
        self._specs = by_partition(specs)
        self._topics = [spec.name for spec in specs]
        self._clock = clock
        self._metrics = metrics
        self._lane = lane
        self._client = client
        self._seconds = connection.timeout_ms / 1000
        self._lock = threading.Lock()
        self._closed = False
        self._up: bool | None = None
        self._claims = Claims(TopicPartition(Topics(lane=lane).name("fences"), 0))
        self._producer_wire = self._wire("append")
        self._producer = Producer(self._producer_wire, clock)
        self._control = self._wire("control")
        self._writers: dict[str, FencedWriter] = {}
        self._readers: dict[threading.Thread, Reader] = {}

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append all entries or none; see `Log.append`.

        Without a fence, an append that raised `LogUnavailableError` may have been written in part.
        """
        for entry in entries:
            self._require_fit(entry)
        if fence is not None:
            if not entries:
                self.check(fence)
                return []
            return self._writer(fence.name).append(entries, fence, self._deadline())
        return self._producer.append(entries, self._deadline()) if entries else []

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records from `offset` on; see `Log.read`."""
        self._require(source)
        return self._reader().read(source, offset, max_records, max_bytes)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the first offset and the last stable one; see `Log.bounds`."""
        self._require(source)
        return self._reader().bounds(source)

    def claim(self, name: str) -> Fence:
        """Claim `name`; see `Log.claim`."""
        return self._writer(name).claim(self._deadline())

    def check(self, fence: Fence) -> None:
        """Refuse a stale fence; see `Log.check`."""
        deadline = self._deadline()
        with self._control.held(deadline):
            self._claims.require(fence, self._control, deadline)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Record the group's next offsets; see `Log.commit`.

        Raises:
            LogError: without a fence, while the group has live members.
        """
        for source in offsets:
            self._require(source)
        if not offsets:
            if fence is not None:
                self.check(fence)
            return
        deadline = self._deadline()
        if fence is not None:
            self._writer(fence.name).commit(group, offsets, fence, deadline)
            return
        with self._control.held(deadline):
            groups.commit(self._control, group, offsets, deadline)

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return the group's last commit; see `Log.committed`."""
        self._require(source)
        deadline = self._deadline()
        with self._control.held(deadline):
            return groups.committed(self._control, group, source, deadline)

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Block until there is something to read at one of the positions; see `Log.wait`."""
        for source in positions:
            self._require(source)
        return self._reader().wait(positions, timeout_seconds)

    def close(self) -> None:
        """Refuse everything from now on, wake those who wait, and drop the connections."""
        with self._lock:
            self._closed = True
            parts: list[Callable[[Deadline], None]] = [reader.close for reader in self._readers.values()]
            parts += [writer.close for writer in self._writers.values()]
            self._readers.clear()
            self._writers.clear()
        deadline = Deadline(CLOSE_SECONDS_MAX)
        for close in [self._producer_wire.close, self._control.close, *parts]:
            close(deadline)

    def _deadline(self) -> Deadline:
        if self._closed:
            raise LogUnavailableError(CLOSED)
        return Deadline(self._seconds)

    def _require(self, source: TopicPartition) -> None:
        if self._closed:
            raise LogUnavailableError(CLOSED)
        spec_of(self._specs, source.topic, source.partition)

    def _require_fit(self, entry: Entry) -> None:
        require_key(spec_of(self._specs, entry.topic, entry.partition), entry.key)
        for name, part, bytes_max in (("value", entry.value, VALUE_BYTES_MAX), ("key", entry.key, KEY_BYTES_MAX)):
            if part is not None and len(part) > bytes_max:
                raise LogError(
                    f"a {name} of {len(part)} bytes for {entry.topic} is too large: "
                    f"Kafka's log takes {bytes_max} bytes, so make smaller records"
                )

    def _writer(self, name: str) -> FencedWriter:
        with self._lock:
            if self._closed:
                raise LogUnavailableError(CLOSED)
            writer = self._writers.get(name)
            if writer is None:
                writer = self._writers[name] = FencedWriter(
                    name,
                    f"cordon-{self._lane}-{name}",
                    self._wire(f"fence-{name.replace('/', '-')}"),
                    self._claims,
                    self._clock,
                    transaction_ms=self._connection.transaction_ms,
                    client=self._client,
                )
            return writer

    def _reader(self) -> Reader:
        thread = threading.current_thread()
        reader = self._readers.get(thread)
        if reader is not None:
            return reader
        with self._lock:
            if self._closed:
                raise LogUnavailableError(CLOSED)
            ended = [self._readers.pop(other) for other in list(self._readers) if not other.is_alive()]
            reader = self._readers[thread] = Reader(self._wire("read"), self._wire("poll"), self._seconds)
        for other in ended:
            other.close(Deadline(CLOSE_SECONDS_MAX))
        return reader

    def _wire(self, use: str) -> Wire:
        return Wire(self._connection, self._topics, f"{self._client}-{use}", self._note)

    def _note(self, up: bool) -> None:
        if up is not self._up:
            if up and self._up is not None:
                # What does not answer, whoever asked says by itself.
                logger.warning("Kafka answers again", extra={"log_is_back": True})
            self._up = up
            self._metrics.set("kafka_up", 1 if up else 0)
