"""The embedded Cordon says whether it sees, by the age of the newest tick that was counted."""

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.embedded import RunningEmbedded, running
from deploy.serving.configuration import ConfigurationError
from ingest.settings import Settings


def sight_of(cordon: RunningEmbedded) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {cordon.token('operator')}"}
    answer = httpx2.get(f"{cordon.streams_url}/v1/sight", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_for(cordon: RunningEmbedded, seeing: bool) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while (found := sight_of(cordon))["seeing"] is not seeing:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def settings(folder: Path, **more: Any) -> Settings:
    ports: dict[str, Any] = {"reports_port": 0, "streams_port": 0, "query_port": 0}
    return Settings(data_dir=str(folder), store=False, **ports, **more)


def test_sight_ends_when_ticks_are_overdue(tmp_path: Path) -> None:
    with running(settings(tmp_path, tick_ms=10_000, blind_seconds=1)) as cordon:
        wait_for(cordon, True)
        found = wait_for(cordon, False)
    assert [(one["share"], one["cause"]) for one in found["why"]] == [("pipeline", "old")]


def test_one_process_drives_one_detection(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave it at 1"), running(settings(tmp_path, keyed_partitions=2)):
        pass
