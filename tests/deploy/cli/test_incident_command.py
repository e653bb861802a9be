"""`cordon incident`: what it writes of a replayed incident is true, the same twice, and its errors say what to do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dashboards.incident.gather import gathered
from dashboards.incident.material import Material
from dashboards.incident.source import StoreSource
from deploy.cli.incident import http_trail, incident, store_ask
from deploy.replay.remote import fetch_keys
from detectors.policy import load
from support.incident_reports import Read
from support.watched import LANE, Watched, watched_incident


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_incident(tmp_path_factory.mktemp("incident"), pagers=True) as found:
        yield found


@pytest.fixture(scope="module")
def material(watched: Watched) -> Material:
    cordon = watched.cordon
    ask = store_ask(cordon.embedded.settings, LANE, cordon.query_url)
    source = StoreSource(ask, http_trail(cordon.streams_url, cordon.token("viewer")))
    return gathered(source, watched.result.rollout, LANE, fetch_keys(cordon.streams_url), [load()])


@pytest.fixture
def token(watched: Watched, tmp_path: Path) -> Path:
    path = tmp_path / "viewer.token"
    path.write_text(watched.cordon.token("viewer"))
    return path


def run(watched: Watched, *arguments: str | Path) -> Result:
    port = watched.cordon.query_url.rstrip("/").rsplit(":", 1)[1]
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(incident, words, env={"CORDON_QUERY_PORT": port, "CORDON_LANE": LANE})


def test_a_report_is_written_and_the_same_data_gives_the_same_bytes(
    watched: Watched, token: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "new" / "one.html", tmp_path / "two.html"]
    for file in files:
        done = run(
            watched, watched.result.rollout, "--out", file, "--url", watched.cordon.streams_url, "--token-file", token,
            "--key", watched.cordon.public_key_path(),
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert done.output == f"{file}\n"
    assert files[0].read_bytes() == files[1].read_bytes()
    text = Read(files[0].read_text(encoding="utf-8")).text
    for words in ("The switch stands ■ killed", "✓ Whole:", "crowdstrike paged (critical)", "csagent.sys|0x50"):
        assert words in text
    assert list(files[0].parent.iterdir()) == [files[0]]


def test_the_kill_and_its_evidence_are_those_of_the_replay(watched: Watched, material: Material) -> None:
    truth, decided = watched.result, material.deciding
    assert decided is not None
    assert (decided.watermark_ms, decided.evidence) == (truth.killed_ms, truth.evidence)
    assert all(one.believed and not one.note for one in material.decisions)
    assert truth.first_crash_ms is not None
    assert material.first_crash_ms == pytest.approx(truth.first_crash_ms, abs=30_000)


def test_who_was_reached_and_who_crashed_is_what_the_fleet_knows(watched: Watched, material: Material) -> None:
    truth = watched.result
    heard = truth.lost - truth.lost_silent_at_end
    assert material.exposed == pytest.approx(truth.pushed, rel=0.05)
    assert material.everybody.crashed == pytest.approx(heard, abs=max(2, 0.03 * heard))
    for dimension in ("ring", "os_build", "tenant"):
        parts = [one for one in material.reach if one.dimension == dimension]
        assert sum(one.crashed for one in parts) == material.everybody.crashed
        assert sum(one.told for one in parts) == material.everybody.told
        assert sum(one.crashes for one in parts) == material.everybody.crashes
    assert {one.name for one in material.reach if one.dimension == "ring" and one.crashed} <= {
        "canary",
        "early",
        "broad",
    }


def test_the_guilty_signature_has_its_stack_and_is_on_no_device_without_the_update(material: Material) -> None:
    guilty = material.signatures[0]
    assert (guilty.signature, guilty.devices_without) == ("csagent.sys|0x50", 0)
    assert guilty.frames.startswith("csagent.sys+")
    assert guilty.devices == pytest.approx(material.everybody.crashed, abs=3)


def test_who_comes_back_is_of_those_who_crashed(material: Material) -> None:
    last, parts = material.recovery[-1], material.recovery_parts
    assert sum(one.looping for one in parts) == last.looping
    assert sum(one.recovered for one in parts) == last.recovered
    # A full minute behind what the store has, and a quarter of an hour too early for anybody to be called recovered.
    assert 0.5 * material.everybody.crashed < last.looping <= 1.1 * material.everybody.crashed
    assert (last.recovered, last.silent) == (0, 0)


def test_pages_trail_and_policy_are_there(watched: Watched, material: Material) -> None:
    assert {one.owner for one in material.pages} == {"crowdstrike"}
    assert material.trail is not None
    assert material.trail.faults == []
    assert [one.event_id for one in material.trail.entries] == [
        f"{watched.result.rollout}/{one.number}" for one in material.decisions
    ]
    assert material.policy == load().default


def test_the_store_alone_is_enough_with_keys(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "alone.html"
    key = watched.cordon.public_key_path()
    done = run(watched, watched.result.rollout, "--out", file, "--store-only", "--key", key)
    assert done.exit_code == 0, done.output
    assert "was written from the store alone" in Read(file.read_text(encoding="utf-8")).text


def test_the_store_alone_without_keys_is_refused(watched: Watched, tmp_path: Path) -> None:
    done = run(watched, watched.result.rollout, "--out", tmp_path / "x.html", "--store-only")
    assert done.exit_code == 2
    assert "--store-only needs --key" in done.output


def test_an_unknown_rollout_writes_nothing_and_says_where_to_look(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "x.html"
    done = run(watched, "r-nobody", "--out", file, "--store-only", "--key", watched.cordon.public_key_path())
    assert done.exit_code == 1
    assert re.search(r"no rollout 'r-nobody' is known .*cordon query rollouts_latest", done.output)
    assert not file.exists()


def test_a_cordon_that_is_not_up_is_named(watched: Watched, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        incident,
        ["r-1", "--out", str(tmp_path / "x.html"), "--store-only", "--key", str(watched.cordon.public_key_path())],
        env={"CORDON_QUERY_PORT": "1"},
    )
    assert done.exit_code == 1
    assert "start it with `cordon up`" in done.output


def test_a_file_that_cannot_be_written_is_named(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "x.html"
    done = run(watched, watched.result.rollout, "--out", out, "--store-only", "--key", watched.cordon.public_key_path())
    assert done.exit_code == 1
    assert f"cannot write {out}" in done.output
