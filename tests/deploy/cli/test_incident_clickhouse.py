"""`cordon incident` of a rollout that a ClickHouse server has, by settings alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli.main import main
from ingest.store.interface import database_of
from ingest.store.native import NativeStore
from ingest.store.server import Server
from support.clickhouse.process import ClickHouseProcess
from support.incident_reports import FOLDER, LANE, ROLLOUT, Read, answers

KEYS = FOLDER / "keys.json"
UPDATE = {"vendor": ["crowdstrike"], "product": ["channel-file-291"], "version": ["2024-07-19.0409"]}
HOSTILE = "<b>\t'\\"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the settings of a server that has the recorded incident's decisions and verdicts, and a crash."""
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        settings = {
            "CORDON_CLICKHOUSE_HOST": "127.0.0.1", "CORDON_CLICKHOUSE_PORT": str(server.port), "CORDON_LANE": LANE,
        }  # fmt: skip
        applied = CliRunner().invoke(main, ["migrate", "apply"], env=settings)
        assert applied.exit_code == 0, applied.output
        store = NativeStore(Server("127.0.0.1", server.port), database_of(LANE))
        try:
            _fill(store)
        finally:
            store.close()
        yield settings


def _fill(store: NativeStore) -> None:
    said = answers()
    store.insert("rollouts", {"rollout": [ROLLOUT], **UPDATE, "json": [said["rollout"][0]["json"]]})
    events = said["decisions"]
    store.insert("killswitch", {
        "rollout": [ROLLOUT] * len(events), "number": [one["number"] for one in events],
        "envelope": [one["envelope"] for one in events],
    })  # fmt: skip
    latest = said["verdict_latest"][0]["json"]
    points = said["verdict_points"]
    store.insert("verdicts", {
        "rollout": [ROLLOUT] * len(points), "at": [int(one["at_ms"]) for one in points],
        "log_offset": list(range(len(points))), "json": [latest] * len(points),
        "reason": ["kill_evidence"] * len(points),
        **{f"log10_{name}": [one[name] for one in points] for name in ("needed_to_hold", "needed_to_kill")},
        "log10_evidence_max": [one["evidence"] for one in points],
        **{name: [int(one[name]) for one in points] for name in ("crashes_exposed", "crashes_control", "exposed")},
    })  # fmt: skip
    at = int(points[0]["at_ms"])
    store.insert("crashes", {
        "device": ["d1"], "at": [at], "tenant": ["airline"], "ring": ["canary"], "os_build": [HOSTILE],
        "signature": ["csagent.sys|0x50"], "signature_module": ["csagent.sys"],
        "frames": [["csagent.sys+0xe14ed", "b"]],
        "versions": [[("crowdstrike", "channel-file-291", "2024-07-19.0409", None)]],
    })  # fmt: skip


def test_the_report_is_written_from_the_server(environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = CliRunner().invoke(
        main, ["incident", ROLLOUT, "--out", str(out), "--store-only", "--key", str(KEYS)], env=environment
    )
    assert done.exit_code == 0, done.output
    read = Read(out.read_text(encoding="utf-8"))
    assert read.text.count("✓ verified") == len(answers()["decisions"])
    assert len(read.named("svg")) == 3
    said = json.loads(answers()["verdict_latest"][0]["json"])
    for words in (f"{said['evidence']['exposed']:,} devices exposed", "csagent.sys+0xe14ed", "airline", HOSTILE[:3]):
        assert words in read.text
    assert "b" not in {name for name, _ in read.elements}


def test_an_unknown_rollout_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = CliRunner().invoke(
        main, ["incident", "r-x'\\", "--out", str(out), "--store-only", "--key", str(KEYS)], env=environment
    )
    assert done.exit_code == 1
    assert "is known to this store" in done.output
    assert not out.exists()
