"""A small incident by hand in lane `live`: a bad driver reaches a tenth of 600 devices and dies; its twin lives."""

import base64
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from support.system import CordonProcess, cordon, eventually, running
from support.system_reports import bsod, check_in, update
from support.system_streams import Listener

DEVICES = 600
BAD, TWIN = "sensor", "twin"
OLD, NEW = "7.0", "7.1"
INVENTORY = {f"contoso/{BAD}": OLD, f"contoso/{TWIN}": OLD}
# Every tenth device gets the bad version, and another tenth the twin's; four in a row, so that all tenants are hit.
EXPOSED = [device for device in range(DEVICES) if device % 40 < 4]
TWIN_EXPOSED = [device + 20 for device in EXPOSED]
VICTIMS = EXPOSED[:40]


def inventory_after(device: int) -> dict[str, str]:
    """Return what a device has on its disk after the incident: the twin's new version, where it was installed."""
    return INVENTORY | ({f"contoso/{TWIN}": NEW} if device in TWIN_EXPOSED else {})


class Incident:
    """What happened, for the tests to look at from several sides."""

    def __init__(self, process: CordonProcess, listener: Listener) -> None:
        self.process = process
        self.listener = listener
        self.bad = process.rollout_of(BAD, NEW)
        self.twin = process.rollout_of(TWIN, NEW)

    def kill(self) -> tuple[int, bytes]:
        """Return index and envelope of the kill, as the stream gave it."""
        for index, switch in enumerate(self.listener.switches):
            if switch["state"] == "killed":
                return index, self.listener.envelopes[index]
        raise AssertionError(f"no kill among {self.listener.switches}")


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    """Play the incident: offers to a tenth, then the victims crash and none of them ever says `installed`."""
    with running(tmp_path_factory.mktemp("incident") / "data") as process:
        listener = Listener(process.urls["streams"], process.bearer("rollouts"))
        process.accept([check_in(device, INVENTORY) for device in range(DEVICES)])
        process.accept([update("offered", device, BAD, NEW) for device in EXPOSED])
        process.accept([update("offered", device, TWIN, NEW) for device in TWIN_EXPOSED])
        process.accept([update("installed", device, TWIN, NEW) for device in TWIN_EXPOSED])
        # Faults that were always there strike anybody, the twin's devices too.
        process.accept([bsod(device, module="other.sys") for device in (21, 100, 300)])
        for victim in VICTIMS:
            process.accept([bsod(victim)])
        played = Incident(process, listener)
        for _ in eventually(15, "the kill"):
            if process.verdict(played.bad)["killed"] and any(s["state"] == "killed" for s in listener.switches):
                break
        yield played
        listener.leave()


def test_the_stream_carries_one_signed_kill(incident: Incident) -> None:
    """The events of the bad rollout are numbered from 1 without a hole and end with the kill, by the detector."""
    events = incident.listener.of(incident.bad)
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert [event["state"] for event in events].count("killed") == 1
    last = events[-1]
    assert (last["decision"], last["cause"], last["lane"], last["dry_run"]) == ("kill", "detector", "live", False)
    assert last["evidence"]["log10_evidence_max"] >= last["evidence"]["log10_needed_to_kill"] == 6


def test_verify_accepts_the_kill_with_the_published_key(incident: Incident, tmp_path: Path) -> None:
    """`cordon verify` needs nothing but the event and the keys that `/v1/keys` publishes."""
    keys, event = tmp_path / "keys.json", tmp_path / "kill.json"
    keys.write_bytes(incident.process.http.get(f"{incident.process.urls['streams']}/v1/keys").content)
    event.write_bytes(incident.kill()[1])
    done = cordon("verify", event, "--key", keys)
    assert done.returncode == 0, done.stderr
    assert incident.bad in done.stdout
    assert "KILL" in done.stdout


def test_verify_refuses_a_kill_that_was_changed(incident: Incident, tmp_path: Path) -> None:
    """The same signature under a payload that names the twin is not believed."""
    keys, event = tmp_path / "keys.json", tmp_path / "forged.json"
    keys.write_bytes(incident.process.http.get(f"{incident.process.urls['streams']}/v1/keys").content)
    envelope = msgspec.json.decode(incident.kill()[1])
    payload = base64.b64decode(envelope["payload"]).replace(incident.bad.encode(), incident.twin.encode())
    event.write_bytes(msgspec.json.encode(envelope | {"payload": base64.b64encode(payload).decode()}))
    done = cordon("verify", event, "--key", keys)
    assert done.returncode == 1
    assert "NOT BELIEVED" in done.stderr


def test_the_verdict_says_killed_and_stays_so(incident: Incident) -> None:
    """Neither health afterwards, nor crashes of others, nor a person's hold take it back: only a release does."""
    process = incident.process
    before = process.verdict(incident.bad)
    assert (before["state"], before["decision"], before["killed"]) == ("killed", "kill", True)
    assert before["evidence"]["tenants"] == 4
    process.accept([check_in(device, inventory_after(device)) for device in range(DEVICES) if device not in VICTIMS])
    process.accept([update("installed", device, BAD, NEW) for device in EXPOSED if device not in VICTIMS])
    process.accept([bsod(device, module="other.sys") for device in (25, 105, 305)])
    refused = process.command(incident.bad, "hold", "to see whether it wakes the rollout")
    assert refused.status_code == 409, refused.text
    for _ in eventually(5, "a verdict after the kill"):
        after = process.verdict(incident.bad)
        if after["at_ms"] > before["at_ms"]:
            break
    assert (after["state"], after["decision"], after["killed"]) == ("killed", "kill", True)
    assert after["number"] == before["number"]
    assert process.metric("killswitch_events_total", decision="kill") == 1


def test_the_healthy_twin_is_not_stopped(incident: Incident) -> None:
    """It ran at the same time on as many devices of the same fleet, and crashed like everybody else."""
    twin = incident.process.verdict(incident.twin)
    assert twin["evidence"]["exposed"] == len(TWIN_EXPOSED)
    assert twin["evidence"]["crashes_control"] >= 40
    assert not twin["killed"]
    assert not twin["held"]
    assert not [event for event in incident.listener.of(incident.twin) if event["state"] in ("held", "killed")]


def test_no_device_name_leaves_the_gateway(incident: Incident) -> None:
    """Neither the kill nor the verdicts hold a device's own name."""
    said = base64.b64decode(msgspec.json.decode(incident.kill()[1])["payload"])
    assert b"host-" not in said
    assert "host-" not in str(incident.process.verdict(incident.bad))
