"""`cordon gateway`, `cordon worker` and `cordon signals` each by itself, and what keeps each from starting wrongly."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.distributed import SingleProcess, continue_signal, kafka_settings, stop_signal
from support.system import cordon, eventually
from support.system_reports import bsod, check_in, update

PRODUCT, OLD, NEW = "lamp", "1.0", "1.1"
DEVICES = 400
# Four in a row, so that all tenants are hit.
EXPOSED = [device for device in range(DEVICES) if device % 40 < 4]
BLIND_SECONDS = 4
CONFIGURATION_CODE = 78

pytestmark = pytest.mark.timeout(180)


class Fleet:
    """Four processes: a gateway, a worker for grouping, one for detection, and signals."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.data, self.settings = folder / "data", settings
        self.gateway = self.process("gateway")
        self.grouping = self.process("worker", "--roles", "grouping", "--name", "grouper")
        self.detection = self.process("worker", "--roles", "detection", "--name", "detector", folder="detection")
        self.signals = self.process("signals")
        self.http = httpx2.Client(timeout=20.0, trust_env=False)

    def process(self, kind: str, *arguments: str, folder: str = "data", **settings: object) -> SingleProcess:
        """Return a process on this fleet's Kafka; workers need nothing of the data folder."""
        return SingleProcess(kind, self.data.parent / folder, *arguments, **self.settings, **settings)

    @property
    def all(self) -> list[SingleProcess]:
        return [self.gateway, self.grouping, self.detection, self.signals]

    def bearer(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {(self.data / f'{name}.token').read_text().strip()}"}

    def accept(self, reports: list[dict[str, object]]) -> None:
        url = f"{self.gateway.urls['reports']}/v1/reports"
        answer = self.http.post(url, json=reports, headers=self.bearer("agents"))
        assert answer.status_code == 202, answer.text

    def rollout(self) -> str:
        answer = self.http.get(f"{self.gateway.urls['reports']}/v1/rollouts", headers=self.bearer("rollouts"))
        (found,) = (one["rollout"] for one in answer.json()["rollouts"] if one["product"] == PRODUCT)
        return str(found)

    def verdict(self, rollout: str) -> dict[str, object]:
        url = f"{self.signals.urls['streams']}/v1/rollouts/{rollout}/verdict"
        found: dict[str, object] = self.http.get(url, headers=self.bearer("operator")).json()
        return found

    def await_verdict(self, rollout: str, word: str) -> dict[str, object]:
        """Return the verdict once it is `word`."""
        until = time.monotonic() + 60
        while (found := self.verdict(rollout)).get("verdict") != word:
            assert time.monotonic() < until, (found, self.signals.get("health", "/readyz").text)
            time.sleep(0.1)
        return found


def refused(process: SingleProcess) -> str:
    """Return what a process says that must not start."""
    process.spawn()
    try:
        assert process.wait(40) == CONFIGURATION_CODE
    finally:
        process.kill()
    assert "Traceback" not in process.said
    return process.said


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, bootstrap: str) -> Iterator[Fleet]:
    """Start the four at once, after the topics were applied as the message of the first one asked for."""
    settings = kafka_settings(bootstrap, device_partitions=3, blind_seconds=BLIND_SECONDS)
    made = Fleet(tmp_path_factory.mktemp("single"), settings)
    try:
        assert "cordon topics apply" in refused(made.gateway)
        done = cordon("topics", "apply", **settings)
        assert done.returncode == 0, done.stderr
        for process in made.all:
            process.spawn()
        for process in made.all:
            process.wait_ready()
        yield made
    finally:
        for process in made.all:
            process.kill()
        made.http.close()


@pytest.fixture(scope="module")
def rollout(fleet: Fleet) -> str:
    """Return a rollout that is being watched."""
    fleet.accept([check_in(device, {f"contoso/{PRODUCT}": OLD}) for device in range(DEVICES)])
    fleet.accept([update("offered", device, PRODUCT, NEW) for device in EXPOSED])
    rollout = fleet.rollout()
    fleet.await_verdict(rollout, "watching")
    return rollout


def test_each_says_that_it_is_ready_and_what_it_sees(fleet: Fleet, rollout: str) -> None:
    for process in (fleet.grouping, fleet.detection, fleet.signals):
        assert process.get("health", "/healthz").status_code == 200
        ready = process.get("health", "/readyz").json()
        assert (ready["ready"], ready["problems"]) == (True, [])
    for _ in eventually(10, "sight"):
        if all(one.get("health", "/readyz").json()["sight"]["seeing"] for one in (fleet.detection, fleet.signals)):
            break
    assert "sight" not in fleet.grouping.get("health", "/readyz").json()


def test_a_frozen_grouping_turns_verdicts_to_no_data_and_comes_back(fleet: Fleet, rollout: str) -> None:
    assert fleet.grouping.pid is not None
    stop_signal(fleet.grouping.pid)
    try:
        verdict = fleet.await_verdict(rollout, "no_data")
        assert (verdict["verdict_decision"], verdict["reason"]) == ("unknown", "no_telemetry")
        sight = fleet.detection.get("health", "/readyz").json()["sight"]
        assert {one["share"] for one in sight["why"]} >= {"grouping/0", "grouping/1", "grouping/2"}
    finally:
        continue_signal(fleet.grouping.pid)
    fleet.await_verdict(rollout, "watching")


def test_a_frozen_signals_process_leaves_evidence_and_takes_health(fleet: Fleet, rollout: str) -> None:
    """Detection hears that signals are silent: it goes on scoring, and calls nothing healthy."""
    assert fleet.signals.pid is not None
    stop_signal(fleet.signals.pid)
    try:
        for _ in eventually(20, "detection's loss of sight"):
            sight = fleet.detection.get("health", "/readyz").json()["sight"]
            if [one["share"] for one in sight["why"]] == ["signals/0", "signals/1"]:
                break
        fleet.accept([bsod(device, module="lamp.sys") for device in EXPOSED[:36]])
    finally:
        continue_signal(fleet.signals.pid)
    for _ in eventually(40, "the kill"):
        if fleet.verdict(rollout)["killed"]:
            break


def test_a_gateway_with_another_pseudonym_key_does_not_start(fleet: Fleet) -> None:
    said = refused(fleet.process("gateway", folder="stranger", gateway_name="gateway-2"))
    assert "pseudonym_key is" in said
    assert "(set by gateway-1)" in said
    assert "Copy pseudonym.key" in said


def test_a_gateway_whose_name_is_taken_does_not_start(fleet: Fleet) -> None:
    other = fleet.data.parent / "namesake"
    other.mkdir()
    shutil.copy(fleet.data / "pseudonym.key", other)
    said = refused(fleet.process("gateway", folder="namesake"))
    assert "another gateway by the name 'gateway-1' is alive" in said
    assert "Set gateway_name" in said


def test_a_worker_with_another_partition_count_does_not_start(fleet: Fleet) -> None:
    other = fleet.process("worker", folder="counts")
    other.set(device_partitions=6)
    said = refused(other)
    assert "has 3 partitions where the settings say 6" in said


def test_a_signals_process_with_another_key_does_not_start(fleet: Fleet) -> None:
    other = fleet.data.parent / "impostor"
    assert "tokens.toml" in refused(fleet.process("signals", folder="impostor"))
    other.mkdir(exist_ok=True)
    shutil.copy(fleet.data / "tokens.toml", other)
    said = refused(fleet.process("signals", folder="impostor"))
    assert "signing_key is" in said
    assert "Copy the folder `keys`" in said


def test_each_ends_in_order_and_says_that_it_leaves(fleet: Fleet) -> None:
    for process in (fleet.gateway, fleet.grouping):
        assert process.terminate() == 0, process.said[-2000:]
    for _ in eventually(10, "the shares without an owner"):
        text = fleet.signals.get("health", "/metrics").text
        if 'cordon_owners_missing{stage="grouping"} 3.0' in text:
            break
    for process in (fleet.detection, fleet.signals):
        assert process.terminate() == 0, process.said[-2000:]
    assert all("Traceback" not in process.said for process in fleet.all)
