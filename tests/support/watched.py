"""An incident that has gone through an embedded Cordon with a store, which is left running to be looked at.

For whatever shows things to people: boards, console, report. What is shown is held to the truth that the replay's fleet
knows, so the truth comes along.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2

from deploy.cli.demo_report import wait_until_stored
from deploy.cli.pager_receiver import Receiver, receiving
from deploy.embedded import running
from deploy.embedded.process import RunningEmbedded
from deploy.replay.remote import connected, fetch_keys
from deploy.replay.result import ReplayResult
from detectors.backtest.library import parse
from detectors.backtest.scenario import Scenario
from ingest.settings import Settings
from support.incident import DEVICES, ROLES

LANE = "replay"
PAGED_SECONDS_MAX = 60.0
VENDOR = "crowdstrike"
# Ten minutes instead of three hours, and enough crashes of other causes for something to compare with.
_SHORT = (
    ("duration_seconds = 11400", "duration_seconds = 660"),
    ("warm_up_seconds = 1800", "warm_up_seconds = 180"),
    ("check_in_seconds = 300", "check_in_seconds = 60"),
    ("starts_after_seconds = 0, over_seconds = 600", "starts_after_seconds = 0, over_seconds = 60"),
    ("starts_after_seconds = 1800, over_seconds = 1200", "starts_after_seconds = 90, over_seconds = 120"),
    ("starts_after_seconds = 4200, over_seconds = 4680", "starts_after_seconds = 240, over_seconds = 240"),
    ("crashes_per_device_day = 0.007", "crashes_per_device_day = 1.0"),
    ("report_share = 0.03", "report_share = 0.5"),
)


def ringed_incident() -> Scenario:
    """Return july-19 with rings, in ten minutes."""
    text = (resources.files("detectors.backtest") / "scenarios" / "july-19-rings.toml").read_text()
    for old, new in _SHORT:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse(text, "short-rings")


@dataclass(frozen=True, slots=True)
class Watched:
    """The incident after the fact.

    Attributes:
        cordon: still running.
        result: what is true of the fleet, and what was decided.
        scenario: what happened.
        http: asks the store; one client for all questions, since to make one costs as much as to ask.
    """

    cordon: RunningEmbedded
    result: ReplayResult
    scenario: Scenario
    http: httpx2.Client

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return what the read-only endpoint answers to `sql`.

        Raises:
            AssertionError: it does not run.
        """
        answer = self.http.post(
            self.cordon.query_url, params={"database": f"cordon_{LANE}", "default_format": "JSON"}, content=sql.encode()
        )
        assert answer.status_code == 200, f"{answer.text}\n{sql}"
        found: list[dict[str, Any]] = answer.json()["data"]
        return found


@contextmanager
def watched_incident(
    folder: Path, *, devices: int = DEVICES, kill_switch: bool = True, pagers: bool = False
) -> Iterator[Watched]:
    """Run the short july-19 with rings through an embedded Cordon, and leave that running while the block lasts.

    Args:
        folder: the data folder.
        devices: of the fleet.
        kill_switch: whether the rollout system obeys.
        pagers: whether the vendor has a pager, which a receiver stands for.
    """
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving()) if pagers else None
        settings = Settings(
            data_dir=str(folder), lane=LANE, linger_ms=0, device_partitions=2, reports_port=0, streams_port=0,
            query_port=0, routes_file="" if receiver is None else str(_registry(folder, receiver)),
        )  # fmt: skip
        cordon = stack.enter_context(running(settings))
        scenario = ringed_incident()
        with connected(
            scenario,
            reports_url=cordon.reports_url,
            streams_url=cordon.streams_url,
            token=cordon.token(*ROLES),
            lane=LANE,
            keys=fetch_keys(cordon.streams_url),
            devices=devices,
            kill_switch=kill_switch,
        ) as replay:
            result = replay.run()
        assert receiver is None or receiver.wait("trigger", PAGED_SECONDS_MAX) is not None, "nobody was paged"
        wait_until_stored(cordon)
        # Loopback has no certificates to load.
        http = stack.enter_context(httpx2.Client(trust_env=False, verify=False, timeout=60.0))
        yield Watched(cordon, result, scenario, http)


def _registry(folder: Path, receiver: Receiver) -> Path:
    """Write a registry by which the vendor of the incident has one pager."""
    secret = folder / "pager.key"
    secret.write_text("routing-key\n")
    secret.chmod(0o600)
    path = folder / "routes.toml"
    path.write_text(
        f'lanes = ["{LANE}"]\n[default]\nroutes = ["operator"]\n'
        + "".join(
            f'[routes.{name}]\nchannel = "pagerduty"\nurl = "{receiver.url}/{name}"\nsecret_file = "pager.key"\n'
            for name in ("operator", VENDOR)
        )
        + f'[vendors.{VENDOR}]\nroutes = ["{VENDOR}"]\n[[modules]]\nmatch = "csagent.sys"\nvendor = "{VENDOR}"\n'
    )
    return path
