"""One incident through `cordon up --distributed` while its processes, and the broker, are killed at random moments.

A series has a seed, and the seed says who is killed when. What must be the same whatever was killed is compared with
the embedded Cordon, which nobody disturbed: how many devices crashed and were exposed, by rollout and partition.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import httpx2

from deploy.kafka.broker import LocalKafka
from deploy.replay import driver
from deploy.replay.client import GatewayClient
from deploy.replay.driver import Replay
from deploy.replay.remote import fetch_keys
from deploy.replay.result import ReplayResult
from deploy.replay.subscription import Pace, StreamSubscription
from detectors.backtest.library import parse
from detectors.backtest.scenario import Scenario
from signals.client import KillSwitchClient
from support.distributed import DistributedProcess

BROKER = "kafka"
KILLS = 5
DEVICES = 6000
# Wall seconds before the first and after which no kill falls, and how long a series lasts at least.
QUIET_SECONDS = 2.0
SERIES_SECONDS = 30.0
# Longer than any recovery: Kafka's own restart, then a worker's.
STREAM_SECONDS = 120.0
_SHORT = (
    ("duration_seconds = 7200", "duration_seconds = 420"),
    ("warm_up_seconds = 1800", "warm_up_seconds = 180"),
    ("check_in_seconds = 300", "check_in_seconds = 60"),
)
Totals = dict[tuple[str, int], tuple[int, int]]


def incident() -> Scenario:
    """Return july-19 with a short warm-up and a short day."""
    text = (resources.files("detectors.backtest") / "scenarios" / "july-19.toml").read_text()
    for old, new in _SHORT:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse(text, "short")


@dataclass(slots=True)
class Series:
    """What became of one series.

    Attributes:
        killed: who was killed, and how many wall seconds after the start.
        result: what the replay saw.
        recoveries: wall seconds until a killed process's successor lived, in the order of the kills.
    """

    killed: list[tuple[str, float]] = field(default_factory=list)
    result: ReplayResult | None = None
    recoveries: list[float] = field(default_factory=list)


class Killer:
    """Kills processes at the moments that a seed chose, in a thread of its own."""

    def __init__(self, seed: int, cordon: DistributedProcess, kafka: LocalKafka, series: Series) -> None:
        """Choose the moments and the victims' kinds."""
        generator = random.Random(seed)
        span = SERIES_SECONDS - 2 * QUIET_SECONDS
        self._moments = sorted(QUIET_SECONDS + span * generator.random() for _ in range(KILLS))
        # The broker takes seconds to come back: once in a series at most.
        kinds = ["gateway", "worker-1", "worker-2", "signals"]
        self._victims = [generator.choice(kinds) for _ in range(KILLS)]
        if generator.random() < 0.5:
            self._victims[generator.randrange(KILLS)] = BROKER
        self._cordon, self._kafka, self._series = cordon, kafka, series
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="killer")

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            for moment, victim in zip(self._moments, self._victims, strict=True):
                if self._stop.wait(max(0.0, begun + moment - time.monotonic())):
                    return
                self._kill(victim, begun)
        except BaseException as error:
            self._failure = error

    def _kill(self, victim: str, begun: float) -> None:
        self._series.killed.append((victim, time.monotonic() - begun))
        at = time.monotonic()
        if victim == BROKER:
            self._kafka.kill()
            self._kafka.start()
        else:
            pid = self._living(victim)
            os.kill(pid, signal.SIGKILL)
            while self._cordon.children().get(victim, pid) == pid and not self._stop.is_set():
                time.sleep(0.05)
        self._series.recoveries.append(time.monotonic() - at)

    def _living(self, victim: str) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            pid = self._cordon.children().get(victim)
            if pid is not None:
                return pid
            time.sleep(0.05)
        raise AssertionError(f"{victim} was not started again within a minute")


def replay(cordon: DistributedProcess, token: str, lane: str) -> ReplayResult:
    """Send the incident through, with more patience than a rollout system would need, and obey nothing."""
    scenario = incident()
    event_seconds = (scenario.end_ms - scenario.start_ms) / 1000
    # Patient: what is tested is that Cordon comes back, not how soon.
    driver.STREAM_SECONDS = STREAM_SECONDS
    keys = fetch_keys(cordon.urls["streams"])
    stream = KillSwitchClient(cordon.urls["streams"], keys, token=token, lane=lane, from_start=True, connects_max=500)
    subscription = StreamSubscription(stream.events, stream.close)
    with httpx2.Client(
        base_url=cordon.urls["reports"],
        headers={"authorization": f"Bearer {token}"},
        timeout=httpx2.Timeout(620.0, connect=5.0),
        trust_env=False,
    ) as http:
        try:
            run = Replay(
                scenario,
                GatewayClient(http),
                subscription,
                devices=DEVICES,
                kill_switch=False,
                pace=Pace(event_seconds / SERIES_SECONDS),
            )
            return run.run()
        finally:
            subscription.close()


def totals(cohorts: Mapping[tuple[int, int], tuple[int, Sequence[dict[str, Any]]]]) -> Totals:
    """Return the last crash and exposure totals said, by rollout and device partition."""
    found: Totals = {}
    for (partition, _), (_, windows) in sorted(cohorts.items()):
        for window in windows:
            found[window["rollout"], partition] = window["crash_total"], window["exposed_total"]
    return found


def told(cohorts: Mapping[tuple[int, int], tuple[int, Sequence[dict[str, Any]]]]) -> Counter[tuple[str, str, int]]:
    """Return how many first crashes the windows tell of one by one, by rollout, signature and arm."""
    return Counter(
        (window["rollout"], crash[5], crash[3])
        for _, windows in cohorts.values()
        for window in windows
        for crash in window["crashes"]
    )
