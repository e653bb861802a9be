"""From the report that decides to the kill-switch event at a subscriber, while other traffic flows.

Each trial is a product of its own that ships an update to a tenth of its devices. A first trial finds how many crashes
of exposed devices it takes; of every further one all crashes but the deciding one are posted beforehand, and the clock
runs from the post of the last crash to the event's arrival. Meanwhile 20,000 other reports a second go through the same
gateway. Then the same with 1,000 subscribers, to the last of them.
"""

import base64
import json
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import Any
from urllib.parse import urlsplit

from deploy.bench.figures import Figure, at_least, at_most, printed
from deploy.bench.load import post_all, requests_of
from deploy.bench.server import Served, served
from deploy.bench.traffic import Traffic, chunks
from ingest.clock import WallClock
from ingest.endpoint.post import post_reports
from ingest.events import Bsod, CheckIn, DiskVersion, Offered, Report, encoder
from ingest.rollouts import rollout_id

TRIALS, TRIALS_AT_ONCE, CROWD_TRIALS = 100, 20, 5
DEVICES, EXPOSED = 400, 40
TRAFFIC_PER_SECOND, TRAFFIC_AT_ONCE, POST_REPORTS = 20_000, 2000, 500
SUBSCRIBERS = 1000
DECIDED_SECONDS = 1.2
SETTLE_SECONDS = 1.5
TENANTS = 8


class Listener:
    """One subscriber on a raw socket; notes when each rollout's kill arrived."""

    def __init__(self, url: str, token: str) -> None:
        """Open the stream."""
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        request = (
            f"GET /v1/killswitch/stream HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        self.socket.sendall(request.encode())
        self.kills: dict[str, float] = {}
        self._text = b""

    def take(self, data: bytes) -> None:
        """Take bytes of the stream."""
        now = time.perf_counter()
        self._text += data
        while b"\n\n" in self._text:
            block, _, self._text = self._text.partition(b"\n\n")
            for line in block.splitlines():
                if line.startswith(b"data:"):
                    self._note(line[5:], now)

    def _note(self, data: bytes, now: float) -> None:
        event = json.loads(base64.b64decode(json.loads(data)["payload"]))["data"]
        if event["decision"] == "kill":
            self.kills.setdefault(event["rollout"], now)


class Crowd:
    """Subscribers read by one thread."""

    def __init__(self, cordon: Served, size: int) -> None:
        """Open `size` streams."""
        self.listeners = [Listener(cordon.streams, cordon.token) for _ in range(size)]
        self._selector = selectors.DefaultSelector()
        for listener in self.listeners:
            self._selector.register(listener.socket, selectors.EVENT_READ, listener)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                data = key.data.socket.recv(65536)
                if not data:
                    self._selector.unregister(key.fileobj)
                    continue
                key.data.take(data)

    def wait(self, rollout: str, seconds: float) -> float | None:
        """Return when the last subscriber had the kill of `rollout`; None if one had not in time."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            times = [listener.kills.get(rollout) for listener in self.listeners]
            if None not in times:
                return max(moment for moment in times if moment is not None)
            time.sleep(0.002)
        return None

    def close(self) -> None:
        """Close all streams."""
        self._stop.set()
        self._thread.join()
        for listener in self.listeners:
            listener.socket.close()


class Trial:
    """One product, its devices and its bad update."""

    def __init__(self, number: int) -> None:
        """Name the product and the devices."""
        self.number = number
        self.vendor, self.product = "bench", f"driver-{number}"
        self.rollout = rollout_id(self.vendor, self.product, "2.0")
        self.crashed = 0

    def _common(self, device: int, at_ms: int, seq: int) -> dict[str, Any]:
        return {
            "device": f"t{self.number}-d{device}",
            "seq": seq,
            "at_ms": at_ms,
            "boot_id": "b1",
            "boot_at_ms": at_ms - 3 * 86_400_000,
            "os_build": "22631.3880",
            "form_factor": "desktop",
            "ring": "broad",
            "tenant": f"tenant-{device % TENANTS}",
        }

    def check_ins(self, at_ms: int) -> list[Report]:
        """Return a check-in of every device, with the old version."""
        versions = {f"{self.vendor}/{self.product}": "1.0"}
        return [CheckIn(**self._common(d, at_ms, 1), versions=versions) for d in range(DEVICES)]

    def offers(self, at_ms: int) -> list[Report]:
        """Return the offers of the new version to the exposed devices."""
        update: dict[str, Any] = {
            "vendor": self.vendor,
            "product": self.product,
            "update_kind": "driver",
            "version": "2.0",
        }
        return [Offered(**self._common(d, at_ms, 2), **update) for d in range(EXPOSED)]

    def crash(self, at_ms: int) -> Report:
        """Return the next exposed device's crash."""
        device = self.crashed
        self.crashed += 1
        version = DiskVersion(vendor=self.vendor, product=self.product, version="2.0")
        return Bsod(**self._common(device, at_ms, 3), bugcheck=0x50, module="bench.sys", versions=[version])


def _post_for_ever(reports_url: str, token: str, sent: "Synchronized[int]") -> None:
    """Post other reports at the set rate until the process is ended."""
    traffic = Traffic(85_000, seed=5, pseudonyms=False)
    due = time.perf_counter()
    while True:
        made = traffic.reports(TRAFFIC_AT_ONCE, WallClock().now_ms())
        bodies = [encoder.encode(part) for part in chunks(made, POST_REPORTS)]
        time.sleep(max(0.0, due - time.perf_counter()))
        post_all(reports_url, requests_of(reports_url, token, bodies), len(bodies))
        sent.value += len(made)
        due += TRAFFIC_AT_ONCE / TRAFFIC_PER_SECOND


@contextmanager
def other_traffic(cordon: Served) -> Iterator["Synchronized[int]"]:
    """Post other reports from a process of its own while the block lasts; yields how many were posted."""
    context = get_context("spawn")
    sent = context.Value("q", 0)
    process = context.Process(target=_post_for_ever, args=(cordon.reports, cordon.token, sent), daemon=True)
    process.start()
    while sent.value == 0:
        time.sleep(0.05)
    sent.value = 0
    try:
        yield sent
    finally:
        process.terminate()
        process.join()


def prepare(cordon: Served, trials: list[Trial], crashes: int) -> None:
    """Let all devices check in, offer the updates, and post all crashes but the deciding ones."""
    for step in (Trial.check_ins, Trial.offers):
        for trial in trials:
            post_reports(cordon.reports, cordon.token, step(trial, WallClock().now_ms()))
        time.sleep(SETTLE_SECONDS)
    for trial in trials:
        post_reports(cordon.reports, cordon.token, [trial.crash(WallClock().now_ms()) for _ in range(crashes)])
    time.sleep(SETTLE_SECONDS)


def decide(cordon: Served, crowd: Crowd, trial: Trial) -> float:
    """Post crashes until the rollout is killed; return the seconds from the deciding post to the last subscriber.

    Raises:
        RuntimeError: it was killed before, or not at all.
    """
    if any(trial.rollout in listener.kills for listener in crowd.listeners):
        raise RuntimeError(f"{trial.rollout} was killed by fewer crashes than the first trial")
    while trial.crashed < EXPOSED:
        crash = trial.crash(WallClock().now_ms())
        posted = time.perf_counter()
        post_reports(cordon.reports, cordon.token, [crash])
        had = crowd.wait(trial.rollout, DECIDED_SECONDS)
        if had is not None:
            return had - posted
    raise RuntimeError(f"{trial.rollout} was not killed by {trial.crashed} crashes")


def run_trials(cordon: Served, crowd: Crowd, trials: list[Trial], crashes: int) -> list[float]:
    """Return the seconds of each trial, sorted."""
    seconds: list[float] = []
    for start in range(0, len(trials), TRIALS_AT_ONCE):
        some = trials[start : start + TRIALS_AT_ONCE]
        prepare(cordon, some, crashes)
        seconds.extend(decide(cordon, crowd, trial) for trial in some)
    return sorted(seconds)


def measure() -> list[Figure]:
    """Return the latency figures."""
    with served(store=True, discovered_per_tenant_max=10_000) as cordon:
        trials = [Trial(number) for number in range(1 + TRIALS + CROWD_TRIALS)]
        one = Crowd(cordon, 1)
        prepare(cordon, trials[:1], 0)
        decide(cordon, one, trials[0])
        crashes = trials[0].crashed - 1
        with other_traffic(cordon) as sent:
            started = time.perf_counter()
            seconds = run_trials(cordon, one, trials[1 : TRIALS + 1], crashes)
            rate = sent.value / (time.perf_counter() - started)
            one.close()
            many = Crowd(cordon, SUBSCRIBERS)
            crowd_seconds = run_trials(cordon, many, trials[TRIALS + 1 :], crashes)
            many.close()
    worst = f"deciding report to the last of {SUBSCRIBERS:,} subscribers, worst of {CROWD_TRIALS}"
    return [
        at_most("deciding report to a subscriber, p99", seconds[-(-99 * TRIALS // 100) - 1] * 1e3, "ms", 500),
        printed("the same, median", statistics.median(seconds) * 1e3, "ms"),
        printed("crashes that decided", crashes + 1, "crashes"),
        at_least("other traffic meanwhile", rate, "reports/s", 0.95 * TRAFFIC_PER_SECOND),
        at_most(worst, crowd_seconds[-1] * 1e3, "ms", 1000),
    ]
