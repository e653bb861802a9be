"""`cordon up --distributed`, from outside: an incident, a crash of each child, and an end that loses nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from clickhouse_driver import Client

from support.clickhouse.process import ClickHouseProcess
from support.distributed import DistributedProcess, continue_signal, gone, running_distributed, stop_signal
from support.system import eventually
from support.system_reports import bsod, check_in, update
from support.system_streams import Listener

DEVICES = 400
PRODUCT, OLD, NEW = "sensor", "7.0", "7.1"
EXPOSED = [device for device in range(DEVICES) if device % 40 < 4]
VICTIMS = EXPOSED[:36]
PARTS = {"gateway", "worker-1", "signals"}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def cordon(
    tmp_path_factory: pytest.TempPathFactory, bootstrap: str, clickhouse: ClickHouseProcess
) -> Iterator[DistributedProcess]:
    store: dict[str, Any] = {"clickhouse_host": "127.0.0.1", "clickhouse_port": clickhouse.port}
    with running_distributed(tmp_path_factory.mktemp("up") / "data", bootstrap, blind_seconds=4, **store) as process:
        yield process


@pytest.fixture(scope="module")
def killed(cordon: DistributedProcess) -> str:
    """Return the rollout that a small incident has killed."""
    listener = Listener(cordon.urls["streams"], cordon.bearer("rollouts"))
    cordon.accept([check_in(device, {f"contoso/{PRODUCT}": OLD}) for device in range(DEVICES)])
    cordon.accept([update("offered", device, PRODUCT, NEW) for device in EXPOSED])
    rollout = cordon.rollout_of(PRODUCT, NEW)
    for victim in VICTIMS:
        cordon.accept([bsod(victim)])
    for _ in eventually(20, "the kill"):
        if any(switch["state"] == "killed" for switch in listener.of(rollout)):
            break
    numbers = [switch["number"] for switch in listener.of(rollout)]
    assert numbers == list(range(1, len(numbers) + 1))
    listener.leave()
    return rollout


def test_it_says_where_its_parts_listen(cordon: DistributedProcess) -> None:
    assert set(cordon.urls) == {"reports", "streams", "worker-1", "signals"}
    assert set(cordon.children()) == PARTS
    assert cordon.http.get(f"{cordon.urls['worker-1']}/readyz").json()["ready"] is True


def test_an_incident_is_killed(cordon: DistributedProcess, killed: str) -> None:
    shown = cordon.verdict(killed)
    assert (shown["state"], shown["decision"], shown["killed"]) == ("killed", "kill", True)
    assert shown["evidence"]["tenants"] == 4


def test_its_crashes_are_in_the_store(clickhouse: ClickHouseProcess, killed: str) -> None:
    client = Client("127.0.0.1", port=clickhouse.port)
    for _ in eventually(20, "the crashes in ClickHouse"):
        if client.execute("SELECT uniqExact(device) FROM cordon.crashes FINAL") == [(len(VICTIMS),)]:
            break
    client.disconnect()


def test_the_console_shows_it_with_its_history(cordon: DistributedProcess, killed: str) -> None:
    with httpx2.Client(base_url=cordon.urls["streams"], timeout=60, trust_env=False) as browser:
        form = browser.get("/sign-in").text.partition('name="form" value="')[2].partition('"')[0]
        signed_in = browser.post("/sign-in", data={"form": form, "token": cordon.token("operator")})
        assert signed_in.status_code == 303, signed_in.text
        for path in ("/", "/rollouts", f"/rollouts/{killed}", "/killswitch", "/pages", "/health"):
            page = browser.get(path)
            assert page.status_code == 200, path
            assert "1 stopped" in page.text, path
        assert "grouping/3" in browser.get("/health").text
        for _ in eventually(60, "the evidence in ClickHouse"):
            plot = browser.get("/console/plot/evidence", params={"rollout": killed}).json()
            evidence = {one["label"]: one["values"] for one in plot["series"]}
            if evidence and evidence["evidence that a kill goes by"][-1] >= evidence["needed to kill"][-1]:
                break
        # These crashes tell of no versions on disk, so no signature is stored by version; the question has to run.
        assert "Nothing is stored" in browser.get("/console/table/signatures", params={"rollout": killed}).text
        crashed = browser.get("/console/plot/crash_rate", params={"hours": "1"}).json()
        assert crashed["series"], crashed


def test_two_persons_can_release_it(cordon: DistributedProcess, killed: str) -> None:
    done = cordon.release(killed, "the driver was mended")
    assert done.status_code == 200, done.text
    assert done.json()["state"] == "released"


def test_what_is_watched_is_exported(cordon: DistributedProcess) -> None:
    for name in ("signals", "worker-1"):
        metrics = cordon.metrics_of(name)
        assert metrics['cordon_owner_silent_seconds{owner="grouping/3"}'] < 4
        assert metrics['cordon_newest_age_seconds{owner="detection/1"}'] < 4
        assert metrics['cordon_lag_records{owner="signals/0"}'] < 100
        assert metrics['cordon_owners_missing{stage="grouping"}'] == 0


def test_sight_is_lost_with_a_frozen_worker_and_comes_back(cordon: DistributedProcess) -> None:
    """A worker that lives and says nothing: nobody asks it, it is noticed by its silence."""
    assert cordon.sight()["seeing"] is True
    worker = cordon.children()["worker-1"]
    stop_signal(worker)
    try:
        for _ in eventually(15, "the loss of sight"):
            sight = cordon.sight()
            if {one["cause"] for one in sight["why"]} == {"silent"}:
                break
    finally:
        continue_signal(worker)
    assert {one["share"].partition("/")[0] for one in sight["why"]} == {"grouping", "detection"}
    for _ in eventually(40, "sight again"):
        if cordon.sight()["seeing"]:
            break


@pytest.mark.fault
def test_a_child_that_dies_is_started_again_where_it_listened(cordon: DistributedProcess) -> None:
    before = cordon.children()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for _ in eventually(40, "three new children"):
        after = cordon.children()
        if set(after) == PARTS and not set(after.values()) & set(before.values()):
            break
    for _ in eventually(60, "sight with new children"):
        if answers(cordon) and cordon.sight()["seeing"]:
            break
    cordon.accept([check_in(1)])


def answers(cordon: DistributedProcess) -> bool:
    try:
        pages = (f"{cordon.urls['reports']}/readyz", f"{cordon.urls['streams']}/healthz")
        return all(cordon.http.get(page).status_code == 200 for page in pages)
    except httpx2.TransportError:
        return False


def test_sigterm_ends_all_and_a_restart_knows_what_was_accepted(cordon: DistributedProcess, killed: str) -> None:
    """Everything acknowledged until the last moment is in Kafka: fresh processes go on from there."""
    counted = 25
    cordon.accept([check_in(1000 + number, {"contoso/late": "1"}) for number in range(counted)])
    children = list(cordon.children().values())
    cordon.terminate()
    assert cordon.wait(60) == 0, cordon.said[-3000:]
    assert gone(children, 1) == []
    cordon.start()
    assert cordon.verdict(killed)["state"] == "released"
    for _ in eventually(30, "the devices in the fleet's state"):
        fleet = sum(
            value for name, value in cordon.metrics_of("worker-1").items() if name.startswith("cordon_fleet_devices")
        )
        if fleet == DEVICES + counted:
            break


@pytest.mark.fault
def test_no_child_outlives_a_supervisor_that_was_killed(cordon: DistributedProcess) -> None:
    children = list(cordon.children().values())
    assert len(children) == 3
    cordon.kill()
    assert gone(children, 5) == []


def test_its_data_folder_holds_what_was_agreed(cordon: DistributedProcess) -> None:
    assert (Path(cordon.data) / "agreed-live.json").exists()
    assert "Traceback" not in cordon.said
