"""Leases on many machines: granted while every share of the work is seen, run out when the processes are gone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import LocalKafkaCluster
from signals.client import KillSwitchClient, PublicKeys
from signals.killswitch.effective import EffectiveReason
from support.distributed import DistributedProcess
from support.streams import eventually

LEASE_SECONDS = 9
SECONDS_MAX = 120.0


@pytest.fixture
def process(own_kafka: LocalKafkaCluster, tmp_path: Path) -> Iterator[DistributedProcess]:
    made = DistributedProcess(tmp_path / "data", own_kafka.bootstrap, lease_seconds=LEASE_SECONDS)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(400)
def test_a_rollout_proceeds_while_all_is_seen_and_holds_when_the_processes_are_gone(
    process: DistributedProcess,
) -> None:
    start_ms = time.time_ns() // 1_000_000 + 60_000
    body = {
        "vendor": "acme", "product": "edr", "update_kind": "driver", "version": "1",
        "rings": [{"name": "canary", "starts_at_ms": start_ms}],
    }  # fmt: skip
    declared = process.http.post(
        f"{process.urls['reports']}/v1/rollouts", json=body, headers=process.bearer("rollouts")
    )
    rollout = declared.json()["rollout"]
    keys = PublicKeys.parse((process.data / "keys" / "killswitch.public.json").read_bytes())
    eventually(lambda: process.sight()["seeing"], SECONDS_MAX)
    eventually(lambda: knows(process, rollout), SECONDS_MAX)
    with KillSwitchClient(
        process.urls["streams"], keys, token=process.token("rollouts"), rollout=rollout, from_start=True
    ) as client:
        client.follow()
        eventually(lambda: client.decision(rollout).proceed, SECONDS_MAX)
        first_ms = client.decision(rollout).until_ms
        eventually(lambda: client.decision(rollout).until_ms > first_ms, SECONDS_MAX)
        process.kill()
        until_ms = client.decision(rollout).until_ms
        eventually(lambda: client.decision(rollout).held, LEASE_SECONDS + 10)
        assert client.decision(rollout).reason is EffectiveReason.LEASE_EXPIRED
        assert client.decision(rollout).until_ms == 0
        assert time.time_ns() // 1_000_000 >= until_ms


def knows(process: DistributedProcess, rollout: str) -> bool:
    url = f"{process.urls['streams']}/v1/rollouts/{rollout}/verdict"
    return process.http.get(url, headers=process.bearer("rollouts")).status_code == 200
