"""Recovery through a whole Cordon is held to the truth that the replayed fleet knows: who is lost, and who is back."""

import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import httpx2
import pytest

from deploy.embedded import running
from deploy.replay.remote import connected, fetch_keys
from deploy.replay.result import ReplayResult
from detectors.backtest.library import parse
from detectors.backtest.scenario import Scenario
from ingest.settings import Settings

LANE = "replay"
DEVICES = 6000
# Twenty-five minutes instead of three hours; most of those that are lost get out of the loop soon after the kill.
SHORT = (
    ("duration_seconds = 11400", "duration_seconds = 1500"),
    ("warm_up_seconds = 1800", "warm_up_seconds = 300"),
    ("check_in_seconds = 300", "check_in_seconds = 60"),
    ("starts_after_seconds = 0, over_seconds = 600", "starts_after_seconds = 0, over_seconds = 60"),
    ("starts_after_seconds = 1800, over_seconds = 1200", "starts_after_seconds = 90, over_seconds = 120"),
    ("starts_after_seconds = 4200, over_seconds = 4680", "starts_after_seconds = 240, over_seconds = 240"),
    ("crashes_per_device_day = 0.007", "crashes_per_device_day = 1.0"),
    ("report_share = 0.03", "report_share = 0.5"),
    ("recover_share = 0.06", "recover_share = 0.7"),
    ("recover_boots = [5, 40]", "recover_boots = [2, 4]"),
)


def scenario() -> Scenario:
    """Return july-19 with rings, of which the first kills."""
    text = (resources.files("detectors.backtest") / "scenarios" / "july-19-rings.toml").read_text()
    for old, new in SHORT:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse(text, "recovering")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ReplayResult, dict[str, object]]]:
    """Run it, and return what is true and what is told."""
    folder: Path = tmp_path_factory.mktemp("recovery")
    settings = Settings(
        data_dir=str(folder), lane=LANE, linger_ms=0, device_partitions=2, reports_port=0, streams_port=0, query_port=0,
        store=False, silence_seconds=300,
    )  # fmt: skip
    with running(settings) as cordon:
        token = cordon.token("report", "rollout", "drive", "viewer")
        with connected(
            scenario(), reports_url=cordon.reports_url, streams_url=cordon.streams_url, token=token, lane=LANE,
            keys=fetch_keys(cordon.streams_url), devices=DEVICES, kill_switch=True,
        ) as replay:  # fmt: skip
            result = replay.run()
        url = f"{cordon.streams_url}/v1/rollouts/{result.rollout}/recovery"
        yield result, at_the_end(url, token, scenario().end_ms)


def at_the_end(url: str, token: str, end_ms: int) -> dict[str, object]:
    """Return what is told once the last minutes of the replay are through."""
    deadline = time.monotonic() + 120
    while True:
        answer = httpx2.get(url, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        if number(found, "at_ms") >= end_ms - 2 * 60_000:
            return found
        assert time.monotonic() < deadline, f"the verdict stands at {found['at_ms']}, the replay ended at {end_ms}"
        time.sleep(0.1)


def number(told: dict[str, object], name: str) -> int:
    found = told[name]
    assert isinstance(found, int)
    return found


def test_those_that_are_back_are_counted(told: tuple[ReplayResult, dict[str, object]]) -> None:
    """Those that got out of a boot loop, and those that crashed but once; the last are not quiet for long yet."""
    result, said = told
    assert result.killed_ms is not None
    back = result.lost - result.lost_down_at_end
    assert back >= 100, "the scenario must have something to count"
    assert 0.9 * back <= number(said, "recovered") + number(said, "looping") <= 1.1 * back


def test_those_that_are_lost_are_counted(told: tuple[ReplayResult, dict[str, object]]) -> None:
    """Those that are down count as silent; so may a few that are switched off."""
    result, said = told
    assert result.lost_down_at_end >= 50
    assert 0.9 * result.lost_down_at_end <= number(said, "silent") <= 1.1 * result.lost_down_at_end
    assert said["back"] is False


def test_rows_add_up_and_name_no_tenant(told: tuple[ReplayResult, dict[str, object]]) -> None:
    _, said = told
    rows = said["rows"]
    assert isinstance(rows, list)
    for name in ("silent", "looping", "recovered"):
        assert sum(row[name] for row in rows) == said[name]
    assert all(row["tenant"] == "" or row["tenant"].startswith("#") for row in rows)
