"""A drill through `cordon up --distributed`: gateway, worker and signals are processes of their own, on Kafka."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.distributed import DistributedProcess, continue_signal, running_distributed, stop_signal
from support.system import cordon

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, bootstrap: str) -> Iterator[DistributedProcess]:
    with running_distributed(tmp_path_factory.mktemp("drill") / "data", bootstrap) as started:
        yield started


def drill(process: DistributedProcess, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    where = ["--gateway", process.urls["reports"], "--streams", process.urls["streams"], "--data", str(process.data)]
    done = cordon("drill", *where, "--json", *arguments, seconds=120)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, said


def test_it_is_killed(process: DistributedProcess) -> None:
    """The token that this first drill makes is read by gateway and signals a moment later."""
    code, said = drill(process)
    assert (code, said["result"]) == (0, "passed"), said
    assert process.verdict(said["rollout"])["killed"]


def test_with_the_worker_stopped_it_fails_and_says_so(process: DistributedProcess) -> None:
    """Grouping and detection stand still, the gateway and the stream are there: what SIGSTOP does to a machine."""
    worker = process.children()["worker-1"]
    stop_signal(worker)
    try:
        code, said = drill(process, "--limit", "8")
    finally:
        continue_signal(worker)
    assert (code, said["result"]) == (1, "failed"), said
    assert said["failure"] in ("not_judged", "not_counted")
