"""How soon pages of the console stand: at the server, in a browser, and how soon a decision is on them."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2

from deploy.bench.console_client import Stream, cookie_of, signed_in
from deploy.bench.console_filled import DEVICES, ROLLOUTS, fill, rollout_of
from deploy.bench.console_paint import BOUND_MS, painted
from deploy.bench.figures import Figure, at_most, printed
from deploy.bench.server import Served, served
from deploy.bench.signals_decide import percentile

ASKED, DECIDED = 40, 30
# An overview is made anew after two seconds at the latest: pages asked for at this pace find it new, old, and between.
PACE_SECONDS = 0.25
LIVE_BOUND_MS = 1000
LIVE_SECONDS_MAX = 30
_PAGES = {
    "fleet": "/",
    "rollouts": "/rollouts",
    "all rollouts": "/rollouts?all=yes",
    "rollout": f"/rollouts/{rollout_of(1)}",
    "health": "/health",
}
_PLOTS = ("crash_rate?hours=24", "check_ins?hours=24", "os_builds?hours=24", f"evidence?rollout={rollout_of(1)}")


def measure() -> list[Figure]:
    """Return the figures of the pages."""
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        home = Path(folder) / "data"
        fill(home)
        with served(home, store=True, device_partitions=8) as cordon:
            client = signed_in(cordon.streams, cordon.token)
            size = f"{ROLLOUTS} rollouts, store of {DEVICES / 1e6:g} million devices"
            figures = []
            for name, path in _PAGES.items():
                taken = _milliseconds(partial(_asked, client, path), ASKED)
                figures.append(
                    at_most(f"{name} page at the server, p95 ({size})", percentile(taken, 0.95), "ms", BOUND_MS)
                )
            figures += [
                printed(f"plot {plot.partition('?')[0]}, first time", _milliseconds(
                    partial(_asked, client, f"/console/plot/{plot}"), 1)[0], "ms")
                for plot in _PLOTS
            ]  # fmt: skip
            figures += painted(client, cordon, _PAGES)
            figures += _live(client, cordon)
    return figures


def _asked(client: httpx2.Client, path: str) -> None:
    client.get(path).raise_for_status()


def _milliseconds(ask: Callable[[], object], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - began))
        time.sleep(PACE_SECONDS)
    return taken


def _live(client: httpx2.Client, cordon: Served) -> list[Figure]:
    """Hold one rollout after the other, and time each from the post to the section that says so."""
    stream = Stream(cordon.streams, cookie_of(client), "/")
    stream.socket.settimeout(60)
    headers = {"authorization": f"Bearer {cordon.token}"}
    taken, text = [], b""
    for number in range(DECIDED):
        told = f"{number + 1} stopped".encode()
        began = time.perf_counter()
        client.post(
            f"/v1/rollouts/{rollout_of(number)}/hold", json={"reason": "bench"}, headers=headers
        ).raise_for_status()
        while told not in text:
            if time.perf_counter() - began > LIVE_SECONDS_MAX:
                raise TimeoutError(f"hold {number + 1} was not on the page in {LIVE_SECONDS_MAX} s")
            text += stream.read()
        taken.append(1000 * (time.perf_counter() - began))
        text = b""
        time.sleep(PACE_SECONDS)
    stream.socket.close()
    return [
        at_most("hold posted to the page that shows it, p95", percentile(taken, 0.95), "ms", LIVE_BOUND_MS),
        printed("the same, median", percentile(taken, 0.5), "ms"),
        printed("the same, worst", max(taken), "ms"),
    ]
