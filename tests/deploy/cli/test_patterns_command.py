"""`cordon patterns` on a filled store behind the real read-only endpoint: what it shows, joins, and lacks."""

import threading
from collections.abc import Iterator

import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.alerts.job import AlertsJob
from deploy.alerts.source import StoreRows
from deploy.cli.main import main
from deploy.cli.patterns import Patterns
from ingest.clock import DrivenClock
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.migrate import Migrator
from ingest.store.reader import ChdbReader
from ingest.store.sink import Sink
from ingest.topics import Topics
from support.endpoint import Endpoint
from support.pattern_fleet import BEGIN_MS, crash_entries, quiet, storm


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The endpoint of a store with a storm under two names in the live lane, and a day of crashes in lane `young`."""
    path = tmp_path_factory.mktemp("store")
    stores = []
    for lane, hours in (("live", 96), ("young", 24)):
        topics, clock = Topics(lane=lane, device_partitions=1), DrivenClock(BEGIN_MS)
        log, metrics = MemoryLog(topic_specs(topics), clock), Metrics()
        log.append(crash_entries(topics, quiet(hours)))
        log.append(crash_entries(topics, [*storm(hours, 20), *storm(hours, 9, bugcheck=0x7E, first=30_000)]))
        log.append(crash_entries(topics, storm(hours + 2, 1, "disk.sys", 0x7A, first=90_000)))
        store = ChdbStore(path, "cordon" if lane == "live" else f"cordon_{lane}")
        stores.append(store)
        Migrator(store).apply()
        sink = Sink(log, store, topics, metrics, clock)
        sink.recover()
        sink.drain()
        AlertsJob(log, topics, StoreRows(store), metrics, every_seconds=1).turn()
        sink.drain()
    reader = ChdbReader(path, "cordon")
    server = Endpoint(reader)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()
    reader.close()
    for store in stores:
        store.close()


def run(port: int, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["patterns", *arguments], env={"CORDON_QUERY_PORT": str(port)})


def test_the_alerts_on_record_are_shown_with_their_numbers(port: int) -> None:
    done = run(port)
    assert done.exit_code == 0, done.output
    assert "contoso.sys|0x50" in done.output
    assert "crashes since 2024-07-05 00:00Z, on up to 29 devices of 3 tenants in an hour" in done.output.replace(
        "\n", " "
    )
    assert "no alert holds or kills a rollout" in done.output
    assert "Not enough history" not in done.output


def test_a_script_gets_alerts_and_groups_and_how_each_came_about(port: int) -> None:
    answer = msgspec.json.decode(run(port, "--json").output, type=Patterns)
    (alert,) = answer.alerts
    assert (alert.pattern, alert.signatures) == ("contoso.sys|0x50", ["contoso.sys|0x50", "contoso.sys|0x7e"])
    assert alert.joined.startswith("1 name is like contoso.sys|0x50")
    (group,) = [one for one in answer.groups if one.representative == "contoso.sys|0x50"]
    assert [member.name for member in group.members] == ["contoso.sys|0x50", "contoso.sys|0x7e"]
    assert "1 name is like contoso.sys|0x50" in group.why
    assert answer.again is None


def test_judging_again_finds_what_the_job_found(port: int) -> None:
    answer = msgspec.json.decode(run(port, "--again", "--json").output, type=Patterns)
    assert answer.again is not None
    assert answer.again.status.ready
    found = {(one.alert, one.crashes, one.state.value) for one in answer.again.alerts}
    assert found == {(one.alert, one.crashes, one.state) for one in answer.alerts}


def test_too_little_history_is_said(port: int) -> None:
    done = run(port, "--lane", "young")
    assert done.exit_code == 0, done.output
    assert "No crash pattern beyond the usual is on record." in done.output
    assert "Not enough history to tell what is usual: 25 of 48 hours" in done.output


def test_a_cordon_that_is_not_up_is_an_error_that_says_so() -> None:
    done = run(1)
    assert done.exit_code == 1
    assert "no Cordon answers" in done.output
