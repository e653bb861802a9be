"""`cordon backtest --store` on a filled store behind the real read-only endpoint."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.backtest.recorded import bounded, trace_of
from deploy.backtest.store import RecordedStore
from deploy.cli.backtest_recorded import RecordedBacktest
from deploy.cli.main import main
from ingest.rollouts import Bound, Rollout
from ingest.windows import Step
from support.recorded_store import BAD, GOOD, MINUTE_MS, ORIGIN_MS, VENDOR, RecordedFleet, served

FLEET = RecordedFleet()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("store"), FLEET) as port:
        yield f"http://127.0.0.1:{port}"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backtest", *arguments])


@pytest.fixture(scope="module")
def found(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, RecordedBacktest]:
    file = tmp_path_factory.mktemp("out") / "out.json"
    result = invoke("--store", url, "--json", str(file))
    assert result.exit_code == 0, result.output
    return result, msgspec.json.decode(file.read_bytes(), type=RecordedBacktest)


def test_the_bad_rollout_would_have_been_killed_and_the_good_one_not(found: tuple[Result, RecordedBacktest]) -> None:
    by_update = {one.update: one for one in found[1].rollouts}
    assert set(by_update) == {f"{VENDOR}/{BAD}/2", f"{VENDOR}/{GOOD}/2"}
    bad, good = by_update[f"{VENDOR}/{BAD}/2"].scores[0], by_update[f"{VENDOR}/{GOOD}/2"].scores[0]
    assert bad.judge == good.judge == "cordon"
    assert bad.decided.killed_ms is not None
    assert ORIGIN_MS < bad.decided.killed_ms < ORIGIN_MS + 20 * MINUTE_MS
    assert 0 < bad.taken < bad.taken_without == FLEET.canary
    # The same devices have both: the crashes name one of them, and nothing tells the other from it but that.
    assert good.decided.killed_ms is None
    assert good.decided.proceeded_ms is None


def test_a_recording_counts_as_the_fleet_was(found: tuple[Result, RecordedBacktest]) -> None:
    (bad,) = (one for one in found[1].rollouts if one.update == f"{VENDOR}/{BAD}/2")
    assert (bad.took, bad.controls, bad.crashes) == (FLEET.canary, 900, len(FLEET.crashes))


def test_a_person_reads_decisions_and_what_is_lacking(found: tuple[Result, RecordedBacktest]) -> None:
    output = found[0].output
    assert f"{VENDOR}/{BAD}/2: 300 devices took it, 900 had another version" in output
    assert "silence is not judged" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 120
    assert " isolation-forest " in output


def test_one_product_and_a_span(url: str) -> None:
    one = invoke("--store", url, "--product", f"{VENDOR}/{GOOD}", "--no-peers")
    assert one.exit_code == 0
    assert f"{VENDOR}/{BAD}/2" not in one.output
    early = invoke("--store", url, "--since", "2024-07-01", "--until", "2024-07-02", "--no-peers")
    assert early.exit_code == 2
    assert "no rollout began between 2024-07-01 00:00 and 2024-07-02 00:00 UTC" in early.output


def test_a_policy_is_tried_on_the_past(url: str, tmp_path: Path) -> None:
    policy, out = tmp_path / "policy.toml", tmp_path / "out.json"
    policy.write_text("devices_least = 2000\n")
    arguments = ("--store", url, "--product", f"{VENDOR}/{BAD}", "--no-peers", "--policy", str(policy))
    assert invoke(*arguments, "--json", str(out)).exit_code == 0
    (score,) = msgspec.json.decode(out.read_bytes(), type=RecordedBacktest).rollouts[0].scores
    assert score.decided.killed_ms is None
    assert score.decided.held_ms is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--store", "{url}", "--lane", "empty"), "neither installs nor crashes in lane empty"),
        (("--store", "http://127.0.0.1:9"), "no Cordon answers"),
        (("--store", "{url}", "--product", "sensor"), "write VENDOR/PRODUCT"),
        (("--store", "{url}", "--since", "2024-08-01"), "is not before the end"),
        (("--store", "{url}", "healthy"), "--store takes what was recorded"),
        (("healthy", "--since", "3d"), "go with --store"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_2(url: str, arguments: tuple[str, ...], says: str) -> None:
    result = invoke(*(argument.format(url=url) for argument in arguments))
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_steps_add_up_to_the_recording(url: str) -> None:
    store = RecordedStore(url, "live")
    end = store.end()
    assert end is not None
    (rollout,) = store.rollouts(end.fromtimestamp(0, end.tzinfo), end, VENDOR, BAD)
    first, *steps = trace_of(store.recordings([rollout], end)).feed
    assert isinstance(first, Rollout)
    windows = [window for step in steps if isinstance(step, Step) for window in step.windows]
    assert [step.since_ms for step in steps[1:] if isinstance(step, Step)] == [
        step.watermark_ms for step in steps[:-1] if isinstance(step, Step)
    ]
    crashed = [crash for window in windows for crash in window.crashes]
    assert len(crashed) == windows[-1].crash_total == len(FLEET.crashes)
    assert all(crash.exposed for crash in crashed)
    assert windows[-1].exposed_total == FLEET.canary
    at_risk: dict[tuple[str, int], tuple[int, int]] = {}
    for window in windows:
        at_risk |= {(row.cell, row.group): (row.exposed, row.control) for row in window.at_risk}
        if window.full:
            # Margins of one field are the devices at risk, cut another way.
            builds = [row for row in window.margins if row.margin.startswith("build=")]
            assert sum(row.exposed + row.control for row in builds) == sum(map(sum, at_risk.values()))
    assert sum(exposed for exposed, _ in at_risk.values()) == FLEET.canary - len(FLEET.crashes)
    assert sum(control for _, control in at_risk.values()) == 900 - FLEET.canary


def test_a_declaration_by_list_alone_is_bounded_by_what_is_recorded(url: str) -> None:
    store = RecordedStore(url, "live")
    end = store.end()
    assert end is not None
    (rollout,) = store.rollouts(end.fromtimestamp(0, end.tzinfo), end, VENDOR, BAD)
    listed = msgspec.structs.replace(rollout, rings=[], pushed_devices=300)
    recording = store.recordings([rollout], end)[0]._replace(rollout=listed)
    assert bounded(recording).bound is Bound.OFFERED
    assert bounded(recording._replace(offers=False)).bound is Bound.NONE
    assert bounded(recording._replace(rollout=rollout)).bound is Bound.DECLARED
