"""Kills the processes of a distributed Cordon, and the broker, at random moments.

A series has a seed, and the seed says who is killed when.
"""

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field

from deploy.kafka.broker import LocalKafka
from support.distributed import DistributedProcess

BROKER = "kafka"
KILLS = 5
# Wall seconds before the first and after which no kill falls, and how long a series lasts at least.
QUIET_SECONDS = 2.0
SERIES_SECONDS = 30.0


@dataclass(slots=True)
class Series:
    """What became of one series.

    Attributes:
        killed: who was killed, and how many wall seconds after the start.
        recoveries: wall seconds until a killed process's successor lived, in the order of the kills.
    """

    killed: list[tuple[str, float]] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)


class Killer:
    """Kills processes at the moments that a seed chose, in a thread of its own."""

    def __init__(self, seed: int, cordon: DistributedProcess, kafka: LocalKafka) -> None:
        """Choose the moments and the victims' kinds."""
        generator = random.Random(seed)
        span = SERIES_SECONDS - 2 * QUIET_SECONDS
        self._moments = sorted(QUIET_SECONDS + span * generator.random() for _ in range(KILLS))
        # The broker takes seconds to come back: once in a series at most.
        kinds = ["gateway", "worker-1", "worker-2", "signals"]
        self._victims = [generator.choice(kinds) for _ in range(KILLS)]
        if generator.random() < 0.5:
            self._victims[generator.randrange(KILLS)] = BROKER
        self._cordon, self._kafka = cordon, kafka
        self.series = Series()
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
        at = time.monotonic()
        self.series.killed.append((victim, at - begun))
        if victim == BROKER:
            self._kafka.kill()
            self._kafka.start()
        else:
            pid = self._living(victim)
            os.kill(pid, signal.SIGKILL)
            while self._cordon.children().get(victim, pid) == pid and not self._stop.is_set():
                time.sleep(0.05)
        self.series.recoveries.append(time.monotonic() - at)

    def _living(self, victim: str) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            pid = self._cordon.children().get(victim)
            if pid is not None:
                return pid
            time.sleep(0.05)
        raise AssertionError(f"{victim} was not started again within a minute")
