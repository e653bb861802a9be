"""Pagers on many machines: whoever signs a partition's events pages for it, and goes on after it was killed."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cli.pager_receiver import Receiver, receiving
from deploy.kafka.broker import LocalKafkaCluster
from support.distributed import DistributedProcess
from support.streams import eventually

SECONDS_MAX = 120.0
REGISTRY = """
[default]
routes = ["soc"]
[routes.soc]
channel = "pagerduty"
secret_file = "soc.key"
url = "{url}/soc"
[routes.acme]
channel = "pagerduty"
secret_file = "acme.key"
url = "{url}/acme"
[vendors.acme]
routes = ["acme"]
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def process(own_kafka: LocalKafkaCluster, tmp_path: Path, receiver: Receiver) -> Iterator[DistributedProcess]:
    path = tmp_path / "routes.toml"
    path.write_text(REGISTRY.format(url=receiver.url))
    for name in ("soc", "acme"):
        secret = tmp_path / f"{name}.key"
        secret.write_text("key\n")
        secret.chmod(0o600)
    made = DistributedProcess(tmp_path / "data", own_kafka.bootstrap, routes_file=str(path))
    try:
        made.start()
        yield made
    finally:
        made.close()


def actions(receiver: Receiver) -> list[tuple[str, str]]:
    return [(one.service, one.body["event_action"]) for one in receiver.received]


@pytest.mark.timeout(400)
def test_a_kill_is_paged_once_and_resolved_by_the_process_after_it(
    process: DistributedProcess, receiver: Receiver
) -> None:
    body = {
        "vendor": "acme", "product": "edr", "update_kind": "driver", "version": "1",
        "rings": [{"name": "canary", "starts_at_ms": time.time_ns() // 1_000_000 + 60_000}],
    }  # fmt: skip
    declared = process.http.post(
        f"{process.urls['reports']}/v1/rollouts", json=body, headers=process.bearer("rollouts")
    )
    rollout = declared.json()["rollout"]
    eventually(lambda: ask(process, rollout, "kill"), SECONDS_MAX)
    eventually(lambda: actions(receiver) == [("acme", "trigger")], SECONDS_MAX)
    process.kill()
    process.start()
    eventually(lambda: ask(process, rollout, "release"), SECONDS_MAX)
    eventually(lambda: ("acme", "resolve") in actions(receiver), SECONDS_MAX)
    # Killed after a page was sent and before that was noted, it is sent again under the same key, which pages nobody.
    assert list(dict.fromkeys(actions(receiver))) == [("acme", "trigger"), ("acme", "resolve")]
    assert actions(receiver)[-1] == ("acme", "resolve")
    assert {one.body["dedup_key"] for one in receiver.received} == {f"cordon/{rollout}/acme/1"}


def ask(process: DistributedProcess, rollout: str, action: str) -> bool:
    url = f"{process.urls['streams']}/v1/rollouts/{rollout}/{action}?wait=1"
    said = {"reason": "a test"} | ({"break_glass": True} if action == "release" else {})
    return process.http.post(url, json=said, headers=process.bearer("operator")).status_code == 200
