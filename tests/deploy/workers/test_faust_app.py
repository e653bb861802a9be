"""The Faust app as Cordon makes it: what is switched off, how long things take, and what it says of each record."""

import asyncio
import dataclasses
import ssl
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from deploy.workers.agents import Agents
from deploy.workers.faust_app import CordonApp, cordon_app, group_of
from ingest.log.interface import TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.metrics import Metrics
from ingest.topics import Topics

CONNECTION = Connection(bootstrap=("a:1", "b:2"), session_ms=9000, timeout_ms=2000)
SOURCE = TP("t", 0)


def app_of(connection: Connection = CONNECTION) -> CordonApp:
    return cordon_app(connection, group_of("signals", "live"), "worker-7")


def thread_of(connection: Connection = CONNECTION) -> Any:
    """Return an app's consumer thread, which never ran, and let go of the event loop it was given."""
    thread: Any = app_of(connection).consumer._thread  # type: ignore[attr-defined]  # Faust's own way in
    thread.thread_loop.close()
    return thread


def consumer_of(connection: Connection = CONNECTION) -> Any:
    async def make() -> Any:
        consumer = thread_of(connection)._create_worker_consumer(None)
        await consumer.stop()
        return consumer

    return asyncio.run(make())


def test_nothing_of_faust_runs_but_the_consumer_and_the_agents() -> None:
    asyncio.run(_check_what_runs())


async def _check_what_runs() -> None:
    app = app_of()
    conf = app.conf
    assert conf.id == "cordon-live-signals"
    assert not conf.web_enabled
    assert not conf.topic_allow_declare
    assert conf.topic_disable_leader
    assert not conf.stream_wait_empty
    boot: Any = app.boot_strategy
    assert list(boot.web_server()) == []
    assert list(boot.kafka_producer()) == []
    assert not app.tables
    assert conf.stream_buffer_maxsize <= 1024


def test_a_dead_worker_keeps_its_partitions_for_a_session_and_is_heard_several_times_in_one() -> None:
    consumer = consumer_of()
    assert consumer._session_timeout_ms == 9000
    assert consumer._heartbeat_interval_ms == 1000
    assert consumer_of(dataclasses.replace(CONNECTION, session_ms=1500))._heartbeat_interval_ms == 500
    assert consumer._rebalance_timeout_ms == 9000
    # A request may not end before the session does: a join waits that long.
    assert consumer._request_timeout_ms > 9000


def test_only_what_is_committed_is_read() -> None:
    assert consumer_of()._isolation_level == "read_committed"


def test_the_consumer_speaks_as_every_other_client_does() -> None:
    tls = ssl.create_default_context()
    secured = Connection(
        bootstrap=("a:1",), protocol="SASL_SSL", tls=tls, mechanism="SCRAM-SHA-512", username="u", password="p"
    )
    client = consumer_of(secured)._client
    assert (client._security_protocol, client._ssl_context) == ("SASL_SSL", tls)
    assert (client._sasl_mechanism, client._sasl_plain_username) == ("SCRAM-SHA-512", "u")


class Takes:
    """A consumer thread that is given what a fetch took, with the position the consumer had after it."""

    def __init__(self) -> None:
        self.position: int | None = 0
        self.thread = asyncio.run(self._thread())
        self.thread._chain = {}
        self.thread.highwater = lambda _tp: 99
        state = SimpleNamespace(state_value=lambda _tp: self._state())
        self.consumer = SimpleNamespace(_subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=state)))

    async def _thread(self) -> Any:
        return thread_of()

    def _state(self) -> Any:
        return None if self.position is None else SimpleNamespace(position=self.position)

    def take(self, offsets: Sequence[int], position: int | None) -> list[tuple[int, int]]:
        """Return (offset, since) of each record taken."""
        self.position = position
        records = [SimpleNamespace(offset=offset) for offset in offsets]
        chained = self.thread._chained(self.consumer, SOURCE, records)
        assert all(end == 99 for _, _, end in chained)
        return [(record.offset, since) for record, since, _ in chained]


def test_holes_inside_a_fetch_and_up_to_its_end_are_the_logs_own() -> None:
    takes = Takes()
    assert takes.take([3, 5, 6], 8) == [(3, 3), (5, 4), (6, 6)]
    assert takes.take([8, 10], 11) == [(8, 7), (10, 9)]
    assert takes.take([], 11) == []
    assert takes.take([11], 12) == [(11, 11)]


def test_nothing_is_said_of_what_lies_before_a_fetch_that_begins_elsewhere() -> None:
    """A seek, a reset after retention, or a new assignment: what was skipped may have been records."""
    takes = Takes()
    takes.take([0, 1], 2)
    assert takes.take([5], 6) == [(5, 5)]
    assert takes.take([2, 4], 5) == [(2, 2), (4, 3)]
    takes.take([7], None)
    assert takes.take([9], 10) == [(9, 9)]


@pytest.mark.parametrize("word", ["verdicts", "commands"])
def test_events_carry_the_bytes_of_the_log(word: str) -> None:
    topics = Topics()
    names = [topics.name(word)]
    nothing: Any = SimpleNamespace()
    agents = Agents(CONNECTION, "g", "c", names, nothing, Metrics(), stage_word="signals")

    async def decode() -> Any:
        app = agents._make_app()
        [agent] = app.agents.values()
        message: Any = SimpleNamespace(key=b"\xff", value=b"\x00{", tp=TopicPartition(names[0], 0), headers=None)
        event = await agent.channel.decode(message, propagate=True)
        return event.key, event.value

    assert asyncio.run(decode()) == (b"\xff", b"\x00{")
