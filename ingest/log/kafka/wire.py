"""Requests to the brokers from the calling thread, each within a deadline.

The bottom of Kafka's log. kafka-python does the network: addresses, reconnecting, TLS, SASL, versions, the protocol. A
`Wire` drives it in the thread that asks, so that nothing goes on behind the caller's back: when a call has raised, no
thread is still trying. The invariant: every call ends by its deadline, with an answer or a `LogError` that says what to
do, and the next call starts afresh with whatever brokers there are by then.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    CoordinatorNotAvailableError,
    InvalidMetadataError,
    KafkaError,
    NodeNotReadyError,
    NotCoordinatorError,
    RetriableError,
    UnknownBrokerIdError,
    UnknownError,
    for_code,
)
from kafka.future import Future
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest

from ingest.log.interface import LogError, LogUnavailableError, TopicPartition, UnknownTopicError
from ingest.log.kafka.closing import ClosingManager
from ingest.log.kafka.connection import Connection
from ingest.log.kafka.network import network

Node = int | str
# Pauses between tries: a leader is elected, or a transaction completed, within milliseconds or within seconds.
BACKOFF_SECONDS_MIN = 0.001
BACKOFF_SECONDS_MAX = 0.2
# A fetch answer holds 8 MiB, or one larger batch.
_FRAME_BYTES_MAX = 128 << 20
# Failures that may mean that somebody else leads or coordinates by now.
_MOVED = (
    InvalidMetadataError,
    NodeNotReadyError,
    UnknownBrokerIdError,
    NotCoordinatorError,
    CoordinatorNotAvailableError,
)
# What passes by itself. A broker that fails in a way it has no word for may well not the next time.
_PASSING = (RetriableError, UnknownError)
CLOSED = "the log is closed: open it again"


class Deadline:
    """The moment by which a call has to end, and the pauses between its tries."""

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self.seconds = seconds
        self._at = time.monotonic() + seconds
        self._pause = BACKOFF_SECONDS_MIN

    def remaining(self) -> float:
        """Return the seconds left; 0 when there are none."""
        return max(0.0, self._at - time.monotonic())

    def pause(self) -> float:
        """Return how long to wait before the next try: longer each time, never past the deadline."""
        pause, self._pause = self._pause, min(self._pause * 1.6, BACKOFF_SECONDS_MAX)
        return min(pause, self.remaining())


class Wire:
    """The connections of one user: a producer, a fence, a reading thread. Thread-safe by `held`."""

    def __init__(
        self, connection: Connection, topics: Sequence[str], client: str, report: Callable[[bool], None]
    ) -> None:
        """Prepare; nothing connects before the first request.

        Args:
            connection: where the brokers are.
            topics: whose leaders will be asked for.
            client: this client's name in the brokers' logs.
            report: told after each request whether Kafka answered.
        """
        self._connection = connection
        self._topics = list(topics)
        self._client = client
        self._report = report
        self._lock = threading.RLock()
        self._net: NetworkSelector | None = None
        self._manager: Any = None
        self._coordinators: dict[tuple[str, str], Node] = {}
        self._closed = False
        self._trouble: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @contextmanager
    def held(self, deadline: Deadline) -> Iterator[None]:
        """Keep this wire to the calling thread.

        Raises:
            LogUnavailableError: another thread's request holds it beyond the deadline.
        """
        if not self._lock.acquire(timeout=deadline.remaining()):
            # Not dropped here: the connections are another thread's, and it is still within its own time.
            raise self._away(deadline)
        try:
            if self._closed:
                raise LogUnavailableError(CLOSED)
            yield
        finally:
            self._lock.release()

    def send(self, node: Node, request: Any, seconds: float) -> Future:
        """Send one request and return the future of its answer; `drive` makes it come true."""
        try:
            return self._manager.send(request, node_id=node, request_timeout_ms=max(1.0, seconds * 1000))
        except KafkaError as error:
            return Future().failure(error)

    def drive(self, done: Callable[[], bool], seconds: float) -> bool:
        """Do the network's work until `done` is true; return False when the time ran out before.

        Raises:
            LogUnavailableError: the log was closed.
        """
        until = time.monotonic() + seconds
        while not done():
            if self._closed:
                raise LogUnavailableError(CLOSED)
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._network().poll(timeout_ms=left * 1000)
        return True

    def pause(self, deadline: Deadline) -> None:
        """Wait a little before the next try."""
        self.drive(lambda: False, deadline.pause())

    def answer(self, future: Future, deadline: Deadline) -> Any:
        """Wait for one answer.

        Raises:
            KafkaError: the request failed; ask `retriable` what that means.
        """
        if not self.drive(lambda: future.is_done, deadline.remaining() + 0.05):
            raise TimedOutError
        if future.exception is not None:
            raise future.exception
        return future.value

    def ask(
        self,
        where: Callable[[Deadline], Node],
        request: Callable[[], Any],
        errors: Callable[[Any], Sequence[int]],
        deadline: Deadline,
    ) -> Any:
        """Send a request, again and again while its failure is one that passes, and return the answer.

        Args:
            where: which node to ask; called before each try.
            request: makes the request; called for each try.
            errors: the error codes in an answer. Those that pass lead to another try; others are the caller's.
            deadline: when to give up.

        Raises:
            LogUnavailableError: no good answer came in time.
        """
        while True:
            self.connect(deadline)
            try:
                response = self.answer(self.send(where(deadline), request(), deadline.remaining()), deadline)
            except KafkaError as error:
                self.failed(error, deadline)
                continue
            passing = [for_code(code) for code in errors(response) if issubclass(for_code(code), _PASSING)]
            if not passing:
                self.succeeded()
                return response
            self.failed(passing[0](), deadline)

    def succeeded(self) -> None:
        """Note that Kafka answered."""
        self._trouble = None
        self._report(True)

    def failed(self, error: BaseException, deadline: Deadline) -> None:
        """Note a failed try and wait for the next one.

        Raises:
            LogUnavailableError: there is no time for another one.
            LogError: another one would fail as well.
        """
        if self._closed:
            raise LogUnavailableError(CLOSED) from error
        if not retriable(error):
            raise self.refused(error) from error
        self._trouble = error
        if deadline.remaining() <= 0:
            raise self.unavailable(deadline) from error
        if isinstance(error, _MOVED):
            self._coordinators.clear()
            if self._manager is not None:
                self._manager.cluster.request_update()
        self.pause(deadline)

    def unavailable(self, deadline: Deadline) -> LogUnavailableError:
        """Return the error for an expired deadline; the connections are dropped, so the next call makes new ones."""
        self.drop()
        return self._away(deadline)

    def _away(self, deadline: Deadline) -> LogUnavailableError:
        self._report(False)
        why = f" ({_named(self._trouble)})" if self._trouble is not None else ""
        settings = "kafka_bootstrap and kafka_security"
        if self._connection.mechanism:
            settings = "kafka_bootstrap, kafka_security, kafka_username and kafka_password_file"
        return LogUnavailableError(
            f"Kafka at {','.join(self._connection.bootstrap)} gave no answer within {deadline.seconds:.1f} s{why}. "
            f"It is tried again with the next call; if it stays away, check that the brokers run, that {settings} "
            f"are right, and that the advertised listeners can be reached from here."
        )

    def refused(self, error: BaseException) -> LogError:
        """Return the error for what Kafka refuses for good."""
        return LogError(
            f"Kafka at {','.join(self._connection.bootstrap)} refuses: {_named(error)}. "
            f"Check the rights of the user, and the topics with `cordon topics diff`."
        )

    def connect(self, deadline: Deadline) -> None:
        """Make sure that the cluster's brokers and leaders are known.

        Raises:
            LogUnavailableError: no broker answered in time.
        """
        if self._manager is not None and self._manager.bootstrapped:
            return
        if self._manager is None:
            self._manager = ClosingManager(self._network(), **self._arguments())
            # A misspelt or missing topic is an error, never a new topic.
            self._manager.cluster.config["allow_auto_create_topics"] = False
            self._manager.cluster.set_topics(self._topics)
        bootstrap = self._manager.bootstrap_async(timeout_ms=deadline.remaining() * 1000)

        def settled() -> bool:
            for link in self._manager._conns.values():
                if link.init_future.failed():
                    self._trouble = link.init_future.exception
            return bool(bootstrap.is_done)

        if not self.drive(settled, deadline.remaining()) or bootstrap.exception is not None:
            self._trouble = self._trouble or bootstrap.exception
            raise self.unavailable(deadline)

    def known_leader(self, source: TopicPartition, deadline: Deadline) -> Node | None:
        """Return the node that leads a partition, or None where none is known now.

        Raises:
            LogUnavailableError: no broker answered in time.
        """
        self.connect(deadline)
        leader = self._manager.cluster.leader_for_partition(source)
        if leader in (None, -1) or self._manager.cluster.broker_metadata(leader) is None:
            return None
        return int(leader)

    def leader(self, source: TopicPartition, deadline: Deadline) -> Node:
        """Return the node that leads a partition, as soon as there is one.

        Raises:
            UnknownTopicError: Kafka has no such topic or partition.
            LogUnavailableError: it has no leader.
        """
        while True:
            leader = self.known_leader(source, deadline)
            if leader is not None:
                return leader
            if deadline.remaining() <= 0:
                if self._manager.cluster.leader_for_partition(source) is None and self._trouble is None:
                    raise UnknownTopicError(
                        f"Kafka has no {source.topic} with a partition {source.partition}: "
                        f"run `cordon topics apply` with the settings of this process"
                    )
                raise self.unavailable(deadline)
            self.refresh(deadline)
            if self._manager.cluster.leader_for_partition(source) in (None, -1):
                self.pause(deadline)

    def refresh(self, deadline: Deadline) -> None:
        """Ask for the leaders again; a failure is left to the next try."""
        future = self._manager.call_soon(self._manager.cluster.refresh_metadata)
        if self.drive(lambda: future.is_done, deadline.remaining()) and future.exception is not None:
            self._trouble = future.exception

    def coordinator(self, kind: CoordinatorType, key: str, deadline: Deadline) -> Node:
        """Return the node that coordinates a group or a transactional id."""
        known = self._coordinators.get((kind.name, key))
        if known is not None:
            return known
        response = self.ask(
            self._any_node,
            lambda: FindCoordinatorRequest(key=key, key_type=kind.value, coordinator_keys=[key]),
            lambda answer: [one.error_code for one in answer.coordinators or [answer]],
            deadline,
        )
        found = response.coordinators[0] if response.coordinators else response
        self.require(found.error_code)
        node: Node = self._manager.cluster.add_coordinator(found, kind, key)
        self._coordinators[kind.name, key] = node
        return node

    def require(self, code: int) -> None:
        """Refuse an error code.

        Raises:
            LogError: Kafka's answer is an error that another try would not change.
        """
        if code:
            raise self.refused(for_code(code)())

    def any_node(self, deadline: Deadline) -> Node:
        """Return any broker."""
        return self._any_node(deadline)

    def drop(self) -> None:
        """Drop the connections; the next request makes new ones."""
        self._coordinators.clear()
        manager, net, self._manager, self._net = self._manager, self._net, None, None
        if manager is not None:
            manager.close()
        if net is not None:
            net.close()

    def close(self, deadline: Deadline) -> None:
        """Wake the thread that waits for an answer, if any, and drop the connections."""
        self._closed = True
        net = self._net
        if net is not None:
            net.wakeup()
        if self._lock.acquire(timeout=deadline.remaining()):
            try:
                self.drop()
            finally:
                self._lock.release()

    def _any_node(self, deadline: Deadline) -> Node:
        while True:
            self.connect(deadline)
            node = self._manager.least_loaded_node()
            if node is not None:
                return int(node)
            if deadline.remaining() <= 0:
                raise self.unavailable(deadline)
            self.pause(deadline)

    def _network(self) -> NetworkSelector:
        if self._net is None:
            self._net = network(self._client)
        return self._net

    def _arguments(self) -> Mapping[str, Any]:
        return {
            **self._connection.for_kafka_python(),
            "client_id": self._client,
            "request_timeout_ms": self._connection.timeout_ms,
            "socket_connection_setup_timeout_ms": min(self._connection.timeout_ms, 5000),
            "socket_connection_setup_timeout_max_ms": self._connection.timeout_ms,
            "reconnect_backoff_ms": 20,
            # Short, so that a broker that is back is found at once; five tries a second are nothing.
            "reconnect_backoff_max_ms": 200,
            "receive_message_max_bytes": _FRAME_BYTES_MAX,
        }


def _named(error: BaseException) -> str:
    # kafka-python's errors name themselves.
    name = type(error).__name__
    return str(error) if name in str(error) else f"{name}: {error}"


class TimedOutError(RetriableError):  # type: ignore[misc]  # the library has no types
    """No answer came before the deadline."""


def retriable(error: BaseException) -> bool:
    """Return whether another try may succeed: the network's failures, and the broker's that pass or have no name."""
    return isinstance(error, _PASSING) or not isinstance(error, BrokerResponseError)
