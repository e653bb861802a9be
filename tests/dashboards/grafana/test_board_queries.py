"""Every query of the boards runs on a store and a Prometheus that an incident went through, and shows the truth."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from dashboards.grafana import queries
from dashboards.grafana.build import BOARDS, folder
from dashboards.grafana.macros import View, expand
from dashboards.grafana.preview.asking import FORM
from dashboards.grafana.preview.definition import committed, uids
from dashboards.grafana.preview.page import preview
from dashboards.grafana.queries import Language
from deploy.cli.dashboards import dashboards
from deploy.cli.demo_report import wait_until_stored
from ingest.log.interface import Entry
from ingest.store.interface import database_of
from ingest.topics import Topics
from support.programs import program
from support.watched import LANE, Watched, watched_incident

BOARD_SECONDS_MAX = 1.0
PRODUCT = "channel-file-291"
# What was sent, and when, is known by the wall clock only.
BY_THE_WALL = {"killswitch/pages", "killswitch/pages_over_time", "killswitch/decision_to_page"}
ALERT = Path(__file__).parents[2] / "golden" / "v1" / "alert.json"
# No fault happened, so these have nothing to count; PromQL then answers nothing.
NEVER_HAPPENED = {
    "pipeline/dead_letters",
    "pipeline/refused",
    "pipeline/drill_age",
    "pipeline/store_failures",
    "pipeline/drills",
    "pipeline/drill_seconds",
    "pipeline/leases_withheld",
    "pipeline/webhook_attempts",
    "pipeline/deadman",
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_incident(tmp_path_factory.mktemp("boards"), kill_switch=False, pagers=True) as found:
        _raise_alert(found)
        yield found


def _raise_alert(watched: Watched) -> None:
    """Write an alert as the job would that looks for patterns: an incident of minutes has no hours to judge."""
    told = json.loads(ALERT.read_text())
    start_ms = watched.scenario.start_ms
    told |= {"at_ms": start_ms + 120_000, "opened_ms": start_ms + 60_000, "last_ms": start_ms + 120_000}
    parts = watched.cordon.embedded.parts
    topic = Topics(LANE).name("alerts")
    parts.log.append([Entry(topic, 0, told["alert"].encode(), json.dumps(told).encode())])
    wait_until_stored(watched.cordon)


@pytest.fixture(scope="module")
def view(watched: Watched) -> View:
    """Return what a person looks at who has opened a board after the incident."""
    start = datetime.fromtimestamp(watched.scenario.start_ms / 1000, UTC)
    end = datetime.fromtimestamp(watched.scenario.end_ms / 1000, UTC) + timedelta(minutes=1)
    chosen = View(start, end, 60, {"product": [PRODUCT], "rollout": [watched.result.rollout]})
    found = {name: list(values) for name, values in chosen.variables.items()}
    for name in ("product", "version", "ring", "os_build", "tenant"):
        chosen = View(start, end, 60, found)
        found[name] = [row[name] for row in watched.rows(expand(queries.query(f"variables/{name}"), chosen))]
    return View(start, end, 60, found)


def asked(watched: Watched, view: View, name: str) -> list[dict[str, Any]]:
    return watched.rows(expand(queries.query(name), _now(view) if name in BY_THE_WALL else view))


def _now(view: View) -> View:
    """Return the last hour by the wall clock: that is when people were told, whenever the story happened."""
    now = datetime.now(UTC)
    return replace(view, start=now - timedelta(hours=1), end=now + timedelta(minutes=1))


SQL = [name for name in queries.names() if queries.query(name).language is Language.SQL]
PROMQL = [name for name in queries.names() if queries.query(name).language is Language.PROMQL]


@pytest.mark.parametrize("name", SQL)
def test_a_query_runs_and_gives_rows(watched: Watched, view: View, name: str) -> None:
    assert asked(watched, view, name)


def test_the_rollouts_table_shows_the_kill(watched: Watched, view: View) -> None:
    rows = asked(watched, view, "fleet/rollouts")
    guilty = next(row for row in rows if row["rollout"] == watched.result.rollout)
    assert guilty["decision"] == "kill"
    assert guilty["evidence"] >= guilty["needed"]


def test_the_signature_of_the_incident_is_on_as_many_devices_as_told_of_it(watched: Watched, view: View) -> None:
    truth = watched.result
    heard = truth.lost - truth.lost_silent_at_end
    rows = {row["signature"]: row for row in asked(watched, view, "rollout/signatures")}
    assert int(rows["csagent.sys|0x50"]["devices"]) == pytest.approx(heard, abs=max(2, 0.02 * heard))


def test_the_kill_is_shown_at_its_moment(watched: Watched, view: View) -> None:
    (row,) = asked(watched, view, "killswitch/crash_to_kill")
    killed = datetime.strptime(row["killed_at"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    assert watched.result.killed_ms is not None
    assert killed.timestamp() * 1000 == watched.result.killed_ms
    truth = watched.result.seconds_first_crash_to_kill
    assert truth is not None
    # Devices' clocks are some seconds off, and the first crash may not have been reported.
    assert row["seconds_to_kill"] == pytest.approx(truth, abs=30)


def test_evidence_reaches_what_a_kill_needs_at_the_kill_and_not_before(watched: Watched, view: View) -> None:
    killed_ms = watched.result.killed_ms
    assert killed_ms is not None
    for row in asked(watched, view, "rollout/evidence"):
        at = datetime.strptime(row["time"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp() * 1000
        assert (row["may_kill"] >= row["needed_to_kill"]) == (at >= killed_ms)


def test_evidence_reaches_what_a_hold_needs_when_it_holds_and_not_before(watched: Watched, view: View) -> None:
    verdicts = watched.rows(
        f"SELECT reason FROM verdicts FINAL WHERE rollout = '{watched.result.rollout}' ORDER BY at, log_offset"
    )
    enough = {"no_harm_seen": False, "evidence_rising": False, "hold_evidence": True, "kill_evidence": True}
    rows = asked(watched, view, "rollout/evidence")
    told = {one["reason"] for one in verdicts}
    assert told >= {"evidence_rising", "hold_evidence", "kill_evidence"}
    for row, one in zip(rows, verdicts, strict=True):
        if one["reason"] in enough:
            assert (row["may_hold"] >= row["needed_to_hold"]) == enough[one["reason"]], one


def test_the_crash_rate_rises_with_the_incident(watched: Watched, view: View) -> None:
    pushed = datetime.fromtimestamp(watched.scenario.rollout_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    rows = asked(watched, view, "fleet/crash_rate")
    before = [row["crash_rate"] for row in rows if row["time"] < pushed]
    after = [row["crash_rate"] for row in rows if row["time"] >= pushed]
    assert max(after) > 5 * max(before, default=0.0)


def test_control_devices_are_not_shown_as_exposed(watched: Watched, view: View) -> None:
    last = asked(watched, view, "rollout/exposure")[-1]
    assert int(last["exposed"]) == pytest.approx(watched.result.pushed, rel=0.02)


def test_the_gate_says_of_each_cell_what_it_lacks(watched: Watched, view: View) -> None:
    rows = asked(watched, view, "rollout/gate")
    assert len({row["cell"] for row in rows}) == len(rows)
    assert all("=" in row["cell"] and 0 < row["share"] <= 1 and row["word"] for row in rows)
    assert any(row["device_days_needed"] for row in rows)


def test_recovery_adds_up_by_ring_and_tenant(watched: Watched, view: View) -> None:
    (latest,) = asked(watched, view, "recovery/latest")
    states = ("recovered", "looping", "silent")
    parts = asked(watched, view, "recovery/parts")
    for state in states:
        assert sum(int(part[state]) for part in parts) == int(latest[state])
    minutes = asked(watched, view, "recovery/over_time")
    assert [int(minutes[-1][state]) for state in states] == [int(latest[state]) for state in states]
    rings = [row for row in asked(watched, view, "recovery/by_ring") if row["time"] == minutes[-1]["time"]]
    assert sum(int(row["away"]) for row in rings) == int(latest["looping"]) + int(latest["silent"])
    # Nobody is back a few minutes after the push, and whoever crashed in a report is known to be away.
    truth = watched.result
    assert 0 < int(latest["looping"]) <= truth.lost
    assert int(latest["recovered"]) == truth.recovered == 0


def test_every_page_is_shown_with_its_answer(watched: Watched, view: View) -> None:
    rows = asked(watched, view, "killswitch/pages")
    assert {(row["owner"], row["channel"], row["answered"]) for row in rows} == {
        ("crowdstrike", "pagerduty", "delivered")
    }
    assert {row["rollout"] for row in rows} == {watched.result.rollout}
    assert [row["level"] for row in rows if row["step"] == "trigger"] == ["critical", "high"]
    counted = asked(watched, view, "killswitch/pages_over_time")
    assert sum(int(row["attempts"]) for row in counted) == len(rows)


def test_the_time_from_a_decision_to_the_page_is_shown(watched: Watched, view: View) -> None:
    (row,) = asked(watched, view, "killswitch/decision_to_page")
    first = min(one["at"] for one in asked(watched, view, "killswitch/pages") if one["step"] == "trigger")
    assert (row["owner"], row["told_at"]) == ("crowdstrike", first)
    assert 0 <= row["seconds_to_page"] < 60


def test_an_alert_on_a_pattern_is_shown_while_it_stands(watched: Watched, view: View) -> None:
    (row,) = asked(watched, view, "fleet/alerts")
    assert (row["pattern"], row["state"], int(row["crashes"])) == ("contoso.sys|0x50", "open", 29)
    before = replace(view, start=view.start - timedelta(days=2), end=view.start - timedelta(days=1))
    assert asked(watched, before, "fleet/alerts") == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: str(board.uid))
def test_a_board_is_read_within_a_second(watched: Watched, view: View, board: Any) -> None:
    made = json.loads((folder() / f"{board.uid}.json").read_text())
    texts = [target["rawSql"] for panel in made["panels"] for target in panel.get("targets", []) if "rawSql" in target]
    named = {queries.query(name).text: name for name in SQL}
    started = time.process_time()
    for text in texts:
        asked(watched, view, named[text])
    # The engine runs in this process, all of its threads counted; what else this machine does is not.
    assert time.process_time() - started < BOARD_SECONDS_MAX


DRAWN = [(uid, panel.label) for uid in uids() for panel in committed(uid).panels if panel.sql]


@pytest.mark.parametrize(("uid", "label"), DRAWN)
def test_a_panel_is_previewed_with_what_it_gives(watched: Watched, view: View, uid: str, label: str) -> None:
    board = committed(uid)
    panel = board.panel(label)
    name = next(name for name in SQL if queries.query(name).text == panel.sql[0])
    seen = _now(view) if name in BY_THE_WALL else view

    where = {"database": database_of(LANE), "default_format": FORM}

    def answer(sql: str) -> bytes:
        return watched.http.post(watched.cordon.query_url, params=where, content=sql.encode()).content

    text = preview(board, panel, seen, answer)
    assert panel.no_value not in text.partition('<div class="panel">')[2] or panel.kind == "table"
    assert any(mark in text for mark in ('id="drawing"', '<dl class="stats">', "<table>", "<rect"))


def previewed(watched: Watched, *given: str | Path) -> Result:
    where = ["--store", watched.cordon.query_url, "--lane", LANE]
    return CliRunner().invoke(dashboards, ["preview", *map(str, given), *where])


def test_the_command_writes_a_preview_of_the_chosen_time(watched: Watched, view: View, tmp_path: Path) -> None:
    out = tmp_path / "new" / "panel.html"
    span = ("--since", view.start.isoformat(), "--until", view.end.isoformat())
    chosen = ("--var", f"rollout={watched.result.rollout}")
    done = previewed(watched, "cordon-rollout", "First crashes", "--out", out, *span, *chosen)
    assert (done.exit_code, done.output) == (0, f"{out}\n")
    found = json.loads(out.read_text().partition('id="drawing">')[2].partition("</script>")[0])
    (last,) = watched.rows(
        "SELECT crashes_exposed AS n FROM verdicts FINAL"
        f" WHERE rollout = '{watched.result.rollout}' ORDER BY at DESC, log_offset DESC LIMIT 1"
    )
    assert found["lines"][0]["values"][-1] == float(last["n"]) > 0
    assert found["start"] == view.start.timestamp()
    assert [file.name for file in out.parent.iterdir()] == ["panel.html"]


def test_the_command_takes_a_picture_or_says_what_it_lacks(watched: Watched, tmp_path: Path) -> None:
    done = previewed(watched, "cordon-rollout", "Switch (stat)", "--out", tmp_path / "panel.png")
    if done.exit_code:
        assert "a picture needs Chromium: `make deps-system` installs it" in done.output
        assert list(tmp_path.iterdir()) == []
    else:
        assert [file.name for file in tmp_path.iterdir()] == ["panel.png"]
        assert (tmp_path / "panel.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_looks_back_as_far_as_the_board_does(watched: Watched, tmp_path: Path) -> None:
    out = tmp_path / "panel.html"
    assert previewed(watched, "cordon-rollout", "First crashes", "--out", out).exit_code == 0
    assert '<p class="nothing">nothing in this time</p>' in out.read_text(), "the incident was in 2024"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("cordon-rollot", "Devices", "--out", "x.html"), "the boards: cordon-drivers, cordon-fleet"),
        (("cordon-rollout", "Device", "--out", "x.html"), "its panels: 'Switch (stat)', 'Decision'"),
        (("cordon-rollout", "Devices", "--out", "x.jpg"), "ends in .html or .png"),
        (("cordon-rollout", "Devices", "--out", "x.html", "--var", "rollout"), "write NAME=VALUE"),
        (("cordon-rollout", "Devices", "--out", "x.html", "--var", "ring=canary"), "its variables: rollout"),
        (("cordon-rollout", "Devices", "--out", "x.html", "--since", "yesterday"), "write 90m, 12h, 30d"),
        (
            ("cordon-rollout", "Devices", "--out", "x.html", "--until", "2024-07-19", "--since", "2024-07-20"),
            "not before",
        ),
    ],
)  # fmt: skip
def test_the_command_says_what_was_wrong_and_what_there_is(watched: Watched, given: tuple[str, ...], told: str) -> None:
    done = previewed(watched, *given)
    assert done.exit_code in (1, 2)
    assert told in " ".join(done.output.split())


@pytest.fixture(scope="module")
def prometheus(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a real Prometheus that scrapes the running Cordon; return its URL."""
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    target = watched.cordon.reports_url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: cordon, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _scraped(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _scraped(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if (
                len(_points(url, "count_over_time(up[1m])"))
                and float(_points(url, "count_over_time(up[1m])")[0][1]) >= 4
            ):
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("Prometheus did not scrape Cordon within a minute")


def _points(url: str, expression: str) -> list[tuple[dict[str, str], str]]:
    answer = httpx2.get(f"{url}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{answer}\n{expression}"
    return [(item["metric"], item["value"][1]) for item in answer["data"]["result"]]


@pytest.mark.parametrize("name", PROMQL)
def test_a_metric_query_runs_and_gives_what_it_says(prometheus: str, view: View, name: str) -> None:
    points = _points(prometheus, expand(queries.query(name), view))
    assert bool(points) == (name not in NEVER_HAPPENED) or name in NEVER_HAPPENED


def test_metrics_agree_with_what_happened(prometheus: str, watched: Watched, view: View) -> None:
    taken = _points(prometheus, 'sum(cordon_reports_total{outcome="accepted"})')
    assert float(taken[0][1]) == pytest.approx(watched.result.reports, rel=0.01)
    (devices,) = _points(prometheus, expand(queries.query("pipeline/devices"), view))
    (open_now,) = _points(prometheus, expand(queries.query("pipeline/pager_incidents"), view))
    assert float(open_now[1]) == 1
    (known,) = watched.rows("SELECT uniq(device) AS devices FROM installs WHERE kind = 'offered'")
    assert int(known["devices"]) <= float(devices[1]) <= watched.result.devices
