"""Real processes and real SIGKILLs: pages survive them, each under one key, with PagerDuty's own client on the wire."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cli.pager_receiver import Receiver, receiving
from ingest.clock import WallClock
from ingest.events import encoder
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.specs import topic_specs
from ingest.topics import Topics
from signals.events import SwitchState
from signals.killswitch.event import cloud_event
from support.pager_rig import switch
from support.switches import ROLLOUT, SIGNER

CHILD = Path(__file__).parents[2] / "support" / "pager_child.py"
ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 90.0
REGISTRY = """
[default]
routes = ["pager"]
[routes.pager]
channel = "pagerduty"
secret_file = "pager.key"
url = "{url}/pager"
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def append(folder: Path, number: int, state: SwitchState) -> None:
    topics, clock = Topics(), WallClock()
    log = EmbeddedLog(folder / "log", topic_specs(topics), clock)
    try:
        said = switch(number, state, clock.now_ms())
        value = encoder.encode(SIGNER.sign(encoder.encode(cloud_event(said))))
        log.append([Entry(topics.name("killswitch"), 0, ROLLOUT.encode(), value)])
    finally:
        log.close()


def start(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    child = subprocess.Popen([sys.executable, str(CHILD), str(folder)], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    return child


def kill(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def actions(receiver: Receiver) -> list[str]:
    return [one.body["event_action"] for one in receiver.received]


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pages_survive_sigkill_at_any_moment(tmp_path: Path, receiver: Receiver) -> None:
    """Every kind of event is appended, and processes are killed within moments of starting, again and again."""
    (tmp_path / "routes.toml").write_text(REGISTRY.format(url=receiver.url))
    (tmp_path / "pager.key").write_text("key\n")
    (tmp_path / "pager.key").chmod(0o600)
    chance = random.Random(7)
    for number, (state, action) in enumerate(
        ((SwitchState.HELD, "trigger"), (SwitchState.KILLED, "trigger"), (SwitchState.RELEASED, "resolve")), 1
    ):
        append(tmp_path, number, state)
        before = actions(receiver).count(action)
        for _ in range(2):
            child = start(tmp_path)
            time.sleep(chance.random() * 0.4)
            kill(child)
        child = start(tmp_path)
        deadline = time.monotonic() + WAIT_SECONDS
        while actions(receiver).count(action) == before:
            assert time.monotonic() < deadline, (state, actions(receiver))
            time.sleep(0.02)
        kill(child)
    assert {one.body["dedup_key"] for one in receiver.received} == {f"cordon/{ROLLOUT}/default/1"}
    severities = [one.body["payload"]["severity"] for one in receiver.received if "payload" in one.body]
    # In order, and a death costs a repetition at most: never a page, never a new incident.
    assert severities == sorted(severities, key=["error", "critical"].index)
    assert set(severities) == {"error", "critical"}
    assert set(actions(receiver)[len(severities) :]) == {"resolve"}
    assert len(receiver.received) <= 3 * 4
