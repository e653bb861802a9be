"""A small scenario to vary in tests: 300 devices, 10 minutes of warm-up, then a bad content file to everyone."""

import msgspec

from detectors.backtest.fleet import Fleet
from detectors.backtest.library import parse
from detectors.backtest.scenario import Scenario
from ingest.events import Report, report_decoder

SMALL = """
name = "small"
title = "A small fleet and a bad content file"
seed = 7
start = 2024-07-19T03:59:00Z
duration_seconds = 3600
warm_up_seconds = 600
step_seconds = 5

[fleet]
devices = 300
check_in_seconds = 60
devices_per_site = 10
tenants = [{ name = "alpha", weight = 2 }, { name = "beta", weight = 1 }]
regions = [{ name = "utc", utc_offset_hours = 0, weight = 1 }]
rings = [{ name = "canary", share = 0.2 }, { name = "broad", share = 0.8 }]

[[fleet.form_factors]]
name = "laptop"
weight = 1
uptime_hours_mean = 20
on_by_hour = [0.5,0.5,0.5,0.6,0.7,0.8,0.8,0.8,0.9,0.9,0.9,0.9,0.9,0.9,0.9,0.9,0.9,0.8,0.8,0.7,0.6,0.6,0.5,0.5]
os_builds = [{ name = "22631.3880" }, { name = "19045.4651" }]
models = [{ name = "T14" }]

[telemetry]
delayed_share = 0.05
delay_seconds_mean = 30
delay_seconds_max = 300
unheard_share = 0.02
duplicated_share = 0.02
clock_skew_seconds = 3

[background]
crashes_per_device_day = 0.9
crashes_per_boot = 0.01
reboot_seconds = [60, 120]
crashes = [{ module = "gpu.sys", bugcheck = 0x116 }, { module = "net.sys", bugcheck = 0xd1, weight = 2 }]

[[products]]
vendor = "acme"
product = "sensor"
kind = "driver"
share = 0.9
versions = [{ name = "7", weight = 3 }, { name = "6", weight = 1 }]

[[products]]
vendor = "acme"
product = "content"
kind = "content"
versions = [{ name = "290" }]

[[updates]]
vendor = "acme"
product = "content"
version = "291"
reverted_after_seconds = 1200
rings = [{ name = "*", over_seconds = 600 }]

[updates.incident]
crash_probability = 0.9
boot_loop_share = 0.8
boot_seconds = [30, 60]
report_share = 0.2
report_after_seconds = [30, 90]
recover_share = 0.3
recover_boots = [3, 10]
crash = { module = "acme.sys", bugcheck = 0x50, frames = [{ module = "acme.sys", offset = 0xe14ed }] }
only_with = { vendor = "acme", product = "sensor", versions = ["7"] }

[rollout_system]
reaction_seconds = 10

[truth]
guilty = "acme/content/291"
decision = "kill"
"""


def small(text: str = SMALL, **changes: object) -> Scenario:
    """Return the small scenario, with top-level fields changed."""
    return msgspec.structs.replace(parse(text), **changes)


def run_through(fleet: Fleet) -> list[bytes]:
    """Return everything that a fleet posts until its scenario's end."""
    bodies: list[bytes] = []
    while not fleet.done:
        bodies += fleet.step()
    return bodies


def decoded(bodies: list[bytes]) -> list[Report]:
    """Decode what a fleet posts as the gateway would."""
    return [report_decoder.decode(body) for body in bodies]
