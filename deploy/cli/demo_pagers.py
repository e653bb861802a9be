"""`make demo-pagers`: 2024-07-19 with twenty vendors on every device, and who of them is paged.

The replay goes through a real embedded Cordon over HTTP; its pagers post to a receiver on loopback, at an address for
each vendor. Background crashes fall in the modules of all twenty. Then two persons release the kill. Ends with 0 when
exactly one vendor was told, with one critical page within ten seconds of the kill that names the place in its code, and
told that it is over.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx2
import msgspec
from rich.console import Console
from rich.table import Table

from deploy.cli.demo import ROLES, SETTLE_SECONDS, Timeline
from deploy.cli.pager_receiver import Received, Receiver, receiving
from deploy.replay.client import ReplayError
from deploy.replay.remote import connected
from deploy.replay.result import ReplayResult
from detectors.backtest.library import load
from detectors.backtest.scenario import CrashKind, Scenario
from ingest.events import Frame
from ingest.settings import Settings
from signals.client import KillSwitchClient, PublicKeys, SwitchError
from signals.events import Switch
from signals.pagers.content import FRAMES

LANE: Final = "demo"
GUILTY: Final = "crowdstrike"
# Where the scenario's bad content makes the sensor fault.
FAULT: Final = "csagent.sys+0xe14ed"
# Forty times the usual: each vendor's module shall crash within the half hour, on this small fleet too.
CRASHES_PER_DAY: Final = 0.3
PAGE_SECONDS_MAX: Final = 10.0
RESOLVE_SECONDS_MAX: Final = 60.0
# Vendor, its module, and a bug check it is known for: names for a demo, nothing is said about them.
VENDORS: Final = (
    (GUILTY, "csagent.sys", 0x139),
    ("nvidia", "nvlddmkm.sys", 0x116),
    ("intel-graphics", "igdkmdn64.sys", 0x1E),
    ("intel-wireless", "netwtw10.sys", 0xD1),
    ("realtek", "rtwlane.sys", 0x9F),
    ("amd", "amdkmdag.sys", 0x116),
    ("broadcom", "bcmwl63a.sys", 0xD1),
    ("qualcomm", "qcwlan64.sys", 0xD1),
    ("synaptics", "syntp.sys", 0x9F),
    ("vmware", "vmxnet3.sys", 0xD1),
    ("citrix", "ctxusbm.sys", 0x3B),
    ("veeam", "veeamfsr.sys", 0x50),
    ("acronis", "tdrpman.sys", 0x7E),
    ("logitech", "lgjoyxlcore.sys", 0x50),
    ("dell", "dbutildrv2.sys", 0x3B),
    ("lenovo", "lenovodiag.sys", 0x1E),
    ("hp", "hpsensor.sys", 0x9F),
    ("cisco", "acsock64.sys", 0xD1),
    ("zscaler", "zapprd.sys", 0x50),
    ("samsung", "secnvme.sys", 0x7A),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the demo saw.

    Attributes:
        result: of the replay.
        kill: the kill's event.
        received: everything that vendors were sent.
        released_ms: when two persons had released the kill; 0 if there was none.
        stored: attempts to page that the store has.
        modules: how many of the vendors' modules crashed, by the store.
    """

    result: ReplayResult
    kill: Switch | None
    received: list[Received]
    released_ms: int
    stored: int
    modules: int


def scenario_with_vendors() -> Scenario:
    """Return 2024-07-19 with background crashes in every vendor's module."""
    scenario = load("july-19")
    crashes = [
        CrashKind(
            module=module,
            bugcheck=bugcheck,
            weight=5.0,
            frames=[Frame(module=module, offset=at) for at in (0x1A2F4 + 0x1350 * number, 0x8C10 + 0x2A8 * number)],
        )
        for number, (_, module, bugcheck) in enumerate(VENDORS)
    ]
    background = msgspec.structs.replace(scenario.background, crashes=crashes, crashes_per_device_day=CRASHES_PER_DAY)
    return msgspec.structs.replace(scenario, background=background)


def write_registry(folder: Path, url: str) -> Path:
    """Write the registry: every vendor has a pager of its own, and whoever runs Cordon has one too."""
    lines = [f'lanes = ["{LANE}"]', "[default]", 'routes = ["operator"]']
    for name in ("operator", *(vendor for vendor, _, _ in VENDORS)):
        secret = folder / f"{name}.key"
        secret.write_text(f"{name}-routing-key\n")
        secret.chmod(0o600)
        lines += [
            f"[routes.{name}]",
            'channel = "pagerduty"',
            f'url = "{url}/{name}"',
            f'secret_file = "{secret.name}"',
        ]
    for vendor, module, _ in VENDORS:
        lines += [f"[vendors.{vendor}]", f'routes = ["{vendor}"]']
        lines += ["[[modules]]", f'match = "{module}"', f'vendor = "{vendor}"']
    path = folder / "routes.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def run_demo(folder: Path, receiver: Receiver, devices: int | None) -> Told:
    """Replay through an embedded Cordon, wait for the page, release the kill by two persons, wait for the end.

    Raises:
        ReplayError: the gateway or the stream failed.
    """
    from deploy.embedded import running

    scenario = scenario_with_vendors()
    click.secho(f"{scenario.title}, with {len(VENDORS)} vendors' modules crashing in the background", bold=True)
    settings = Settings(
        data_dir=str(folder / "data"), lane=LANE, reports_port=0, streams_port=0, query_port=0,
        routes_file=str(write_registry(folder, receiver.url)), links_base="https://cordon.example.net",
    )  # fmt: skip
    with running(settings) as cordon:
        token = cordon.token(*ROLES)
        keys = PublicKeys.parse(cordon.public_key_path().read_bytes())
        with connected(
            scenario,
            reports_url=cordon.reports_url,
            streams_url=cordon.streams_url,
            token=token,
            lane=LANE,
            keys=keys,
            devices=devices,
            progress=Timeline(10),
            settle_seconds=SETTLE_SECONDS / 3,
        ) as replay:
            result = replay.run()
        kill = _kill(cordon.streams_url, token, keys, result)
        released_ms = 0
        if kill is not None and receiver.wait("trigger", PAGE_SECONDS_MAX) is not None:
            _release(cordon.streams_url, kill.rollout, token, cordon.token("approver"))
            released_ms = int(time.time() * 1000)
            receiver.wait("resolve", RESOLVE_SECONDS_MAX)
        stored = _stored(cordon.query_url, len(receiver.received))
        modules = _count(cordon.query_url, "SELECT uniqExact(signature_module) AS n FROM crashes FINAL")
    return Told(result, kill, receiver.received, released_ms, stored, modules)


def _kill(url: str, token: str, keys: PublicKeys, result: ReplayResult) -> Switch | None:
    if result.killed_ms is None:
        return None
    with KillSwitchClient(url, keys, token=token, lane=LANE, from_start=True, connects_max=3) as client:
        return next(switch for switch in client.events() if switch.decision == "kill")


def _release(url: str, rollout: str, operator: str, approver: str) -> None:
    """Release the kill: one person asks, another approves."""
    asked = {"reason": "the file was withdrawn", "command_id": "demo-release"}
    with httpx2.Client(base_url=f"{url}/v1/rollouts/{rollout}", timeout=30.0, trust_env=False) as http:
        for path, body, token in (
            ("release", asked, operator),
            ("approve", {"reason": "seen", "command_id": "demo-release"}, approver),
        ):
            answer = http.post(f"{path}?wait=1", json=body, headers={"authorization": f"Bearer {token}"})
            if not answer.is_success:
                raise ReplayError(f"{path} was answered with {answer.status_code}: {answer.text[:200]}")


def _stored(query_url: str, least: int) -> int:
    """Return how many attempts the store has, once it has as many as came or ten seconds have passed."""
    count = 0
    for _ in range(100):
        count = _count(query_url, "SELECT count() AS n FROM pagings FINAL")
        if count >= least:
            break
        time.sleep(0.1)
    return count


def _count(query_url: str, sql: str) -> int:
    answer = httpx2.post(query_url, content=f"{sql} FORMAT JSONCompact", timeout=30.0, trust_env=False)
    answer.raise_for_status()
    return int(json.loads(answer.content)["data"][0][0])


def findings(told: Told) -> list[tuple[str, str, bool]]:
    """Return what must hold: (what, what was measured, whether it holds)."""
    triggers = [one for one in told.received if one.body.get("event_action") == "trigger"]
    critical = {
        (one.service, one.body["dedup_key"]) for one in triggers if one.body["payload"]["severity"] == "critical"
    }
    services = sorted({one.service for one in told.received})
    first = next((one for one in triggers if one.body["payload"]["severity"] == "critical"), None)
    ended = next((one for one in told.received if one.body.get("event_action") == "resolve"), None)
    to_page = None if first is None or told.kill is None else (first.at_ms - told.kill.decided_ms) / 1000
    frames = "" if first is None else str(first.body["payload"].get("custom_details", {}).get(FRAMES, ""))
    to_end = None if ended is None else (ended.at_ms - told.released_ms) / 1000
    keys = {one.body["dedup_key"] for one in told.received if "dedup_key" in one.body}
    return [
        (
            f"modules of all {len(VENDORS)} vendors crashed",
            f"{told.modules} modules",
            told.modules >= len(VENDORS),
        ),
        ("exactly one vendor was told", ", ".join(services) or "nobody", services == [GUILTY]),
        ("one critical page", str(len(critical)), len(critical) == 1),
        ("one incident", f"{len(keys)} dedup key{'s' if len(keys) != 1 else ''}", len(keys) == 1),
        (
            f"page within {PAGE_SECONDS_MAX:g} s of the kill",
            "none" if to_page is None else f"{to_page:.2f} s",
            to_page is not None and to_page <= PAGE_SECONDS_MAX,
        ),
        ("the page names the place in the code", FAULT if FAULT in frames else frames or "nothing", FAULT in frames),
        ("resolved after the release", "no" if to_end is None else f"{max(0.0, to_end):.2f} s", ended is not None),
        ("what was sent is in the store", f"{told.stored} attempts", told.stored >= len(told.received) > 0),
    ]


def payloads(told: Told) -> list[dict[str, Any]]:
    """Return what came, as it came, with where and when."""
    return [{"to": one.service, "path": one.path, "body": one.body} for one in told.received]


@click.command()
@click.option("--devices", type=click.IntRange(2000, 8_500_000), default=20_000, show_default=True, help="Fleet size.")
def main(devices: int) -> None:
    """Replay 2024-07-19 with twenty vendors, and show who was paged with what."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cordon-demo-") as folder, receiving() as receiver:
        try:
            told = run_demo(Path(folder), receiver, devices)
        except (ReplayError, SwitchError) as error:
            raise click.ClickException(str(error)) from error
    for one in payloads(told):
        click.echo(json.dumps(one, indent=2))
    table = Table(title=f"{len(VENDORS)} vendors, {told.result.devices:,} devices")
    for name in ("what must hold", "measured", ""):
        table.add_column(name)
    found = findings(told)
    for what, measured, holds in found:
        table.add_row(what, measured, "yes" if holds else "NO")
    table.add_row("background crashes meanwhile", f"{told.result.background_crashes:,}", "")
    Console(width=110).print(table)
    click.echo(f"done in {time.monotonic() - started:.0f} s")
    sys.exit(0 if all(holds for _, _, holds in found) else 1)


if __name__ == "__main__":
    main()
