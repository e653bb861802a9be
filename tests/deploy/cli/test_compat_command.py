"""`cordon compat` on a filled store behind the real read-only endpoint: what it finds, says and refuses."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.cli import compat
from deploy.cli.compat_table import Compatibility, ProductMatrix, Untold, plain, show
from deploy.cli.main import main
from detectors.interactions import Finding, Matrix, Pair
from ingest.clock import DrivenClock
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.http import application
from ingest.store.migrate import Migrator
from ingest.store.reader import ChdbReader
from ingest.store.sink import Sink
from ingest.topics import Topics
from support.compat_fleet import BAD, BEGIN_MS, CompatFleet

FALCON = ("--product", "CrowdStrike/Falcon")


class Endpoint(ThreadingHTTPServer):
    """Serves the product's endpoint from a thread of the test."""

    def __init__(self, reader: ChdbReader) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.application = application(reader, Metrics())


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Endpoint)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        transport = httpx2.ASGITransport(app=self.server.application)

        async def answered() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.post(self.path, content=body)

        answer = asyncio.run(answered())
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The endpoint of a store with a fleet in the live lane and none in lane `empty`."""
    path = tmp_path_factory.mktemp("store")
    topics, clock = Topics(device_partitions=1), DrivenClock(BEGIN_MS)
    log = MemoryLog(topic_specs(topics), clock)
    log.append(CompatFleet(seed=11, devices=1200).entries(topics))
    empty, store = ChdbStore(path, "cordon_empty"), ChdbStore(path, "cordon")
    Migrator(empty).apply()
    Migrator(store).apply()
    sink = Sink(log, store, topics, Metrics(), clock)
    sink.recover()
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
    store.close()
    empty.close()


def run(port: int, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["compat", *arguments], env={"CORDON_QUERY_PORT": str(port)})


def answer_of(done: Result) -> Compatibility:
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.output, type=Compatibility)


def test_the_bad_pair_is_found_and_named_from_both_sides(port: int) -> None:
    answer = answer_of(run(port, "--json"))
    assert [found.product for found in answer.products] == ["CrowdStrike/Falcon", "NVIDIA/Display"]
    for found, names in zip(answer.products, (BAD, BAD[::-1]), strict=True):
        flagged = [p for p in found.matrix.pairs if p.finding is not Finding.NONE]
        assert (flagged[0].version, flagged[0].level, flagged[0].note) == (*names, "")
        # Builds rise over the same days as drivers do: what that drags along is said to follow.
        assert all(p.version == names[0] and f"may follow from {flagged[0].factor}" in p.note for p in flagged[1:])
        assert found.matrix.pairs[0].finding is Finding.INTERACTION
        assert found.matrix.pairs[0].ratio_low > 3.0
        assert {pair.factor for pair in found.matrix.pairs} >= {"os build", "model"}


def test_a_person_reads_the_pair_its_numbers_and_what_is_left_out(port: int) -> None:
    done = run(port, "--product", "CrowdStrike/Falcon", "--limit", "3")
    assert done.exit_code == 0
    first = next(line for line in done.output.splitlines() if "INTERACTION" in line)
    for word in (*BAD, "NVIDIA/Display"):
        assert word in first
    assert "never reported an update of it" in done.output
    assert "Device-time is from `offered` and `installed` reports" in done.output
    assert "more pairs: --limit or --json shows them" in done.output
    assert "NVIDIA/Display, 2024" not in done.output, "only the product that was asked for"


def test_the_span_is_event_time_and_can_be_told(port: int) -> None:
    whole = answer_of(run(port, "--json", *FALCON)).products[0]
    assert whole.until.startswith("2024-07-20")
    assert whole.since.startswith("2024-06-20")
    part = answer_of(run(port, "--json", *FALCON, "--since", "2024-07-05", "--until", "2024-07-10T00:00")).products[0]
    assert (part.since, part.until) == ("2024-07-05 00:00:00", "2024-07-10 00:00:00")
    days = [sum(p.device_days for p in found.matrix.pairs if p.factor == "model") for found in (whole, part)]
    assert 0 < days[1] < days[0] / 2
    ago = answer_of(run(port, "--json", *FALCON, "--since", "36h", "--until", "2024-07-10T02:00+02:00")).products[0]
    assert (ago.since, ago.until) == ("2024-07-08 12:00:00", "2024-07-10 00:00:00")


def test_crashes_of_one_module_and_samples_are_fewer(port: int) -> None:
    def crashes(*options: str) -> int:
        return sum(p.crashes for p in answer_of(run(port, "--json", *FALCON, *options)).products[0].matrix.pairs)

    assert 0 < crashes("--module", "CSAgent.sys") < crashes()
    sample = answer_of(run(port, "--json", *FALCON, "--one-in", "4")).products[0]
    assert 0 < sum(p.crashes for p in sample.matrix.pairs) < crashes() / 2
    assert "one device in 4" in sample.notes[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--product", "Falcon"), 2, "write VENDOR/PRODUCT"),
        (("--product", "Nobody/Nothing"), 1, "CrowdStrike/Falcon, NVIDIA/Display"),
        (("--since", "yesterday"), 2, "write 90m, 12h, 30d"),
        (("--since", "2024-08-01"), 2, "is not before the end"),
        (("--module", "a\tb"), 2, "no module's name"),
        (("--lane", "empty"), 1, "neither installs nor crashes"),
        (("--ratio", "0.5"), 2, "--ratio"),
    ],
)
def test_what_cannot_be_answered_is_said(port: int, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(port, *arguments)
    assert done.exit_code == code
    assert said in done.output
    assert "Traceback" not in done.output


def test_without_a_running_cordon_it_says_what_to_do() -> None:
    done = run(1)
    assert done.exit_code == 1
    assert "start it with `cordon up`" in done.output


def test_hostile_names_are_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    name = "[bold]\x1b[2J\u202e" + "x" * 100
    pair = Pair(factor=name, version=name, level=name, devices=1, device_days=1.0, crashes=1, note="n")
    matrix = Matrix(pairs=[pair], tested=0, pooled={}, tolerated_ratio=1.25, false_share=0.05)
    found = ProductMatrix(product=name, since="", until="", untold=Untold(0, 0, 0), matrix=matrix, notes=[])
    show(Compatibility(products=[found], products_left_out=3), 5, sys.stdout)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]" in out
    assert "3 smaller products are left out" in out
    assert len(plain(name)) == 48


def test_a_large_fleet_is_asked_in_parts_that_add_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answer_of(run(port, "--json", *FALCON)).products[0]
    monkeypatch.setattr(compat, "DEVICES_AT_ONCE", 300)
    parts = answer_of(run(port, "--json", *FALCON)).products[0]
    assert [(p.version, p.level, p.devices, p.crashes, p.finding) for p in parts.matrix.pairs] == [
        (p.version, p.level, p.devices, p.crashes, p.finding) for p in whole.matrix.pairs
    ]
    assert parts.untold == whole.untold
    monkeypatch.setattr(compat, "PARTS_MAX", 2)
    refused = run(port, *FALCON)
    assert refused.exit_code == 1
    assert "add --one-in 2" in refused.output
    assert run(port, *FALCON, "--one-in", "2").exit_code == 0
