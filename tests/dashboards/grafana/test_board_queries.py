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

from dashboards.grafana import queries
from dashboards.grafana.build import BOARDS, folder
from dashboards.grafana.macros import View, expand
from dashboards.grafana.queries import Language
from deploy.cli.demo_report import wait_until_stored
from ingest.log.interface import Entry
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
    rows = asked(watched, view, "rollout/evidence")
    killed_ms = watched.result.killed_ms
    assert killed_ms is not None
    for row in rows:
        at = datetime.strptime(row["time"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp() * 1000
        assert (row["evidence"] >= row["needed_to_kill"]) == (at >= killed_ms)


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
