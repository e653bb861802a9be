"""Decisions for the benches of delivery: a person holds one declared rollout after the other.

The detectors are measured elsewhere; here only the way out counts, and a hold takes the same one as a kill.
"""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized

import httpx2

from deploy.bench.server import Served

EVENT_SECONDS_MAX = 60.0
_HTTP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event at one subscriber.

    Attributes:
        rollout: whose event it is.
        seconds: from its decision to its arrival, by the machine's clock.
    """

    rollout: str
    seconds: float


def arrival_of(payload: bytes, at_seconds: float) -> Arrival:
    """Return the arrival of a signed event's payload."""
    data = json.loads(payload)["data"]
    return Arrival(data["rollout"], at_seconds - data["decided_ms"] / 1000)


def payload_of(envelope: bytes) -> bytes:
    """Return what an envelope holds."""
    return base64.b64decode(json.loads(envelope)["payload"])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not pass."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


class Decisions:
    """Declares rollouts and holds them."""

    def __init__(self, cordon: Served) -> None:
        """Take the Cordon that decides."""
        self._cordon = cordon
        headers = {"authorization": f"Bearer {cordon.token}"}
        self._http = httpx2.Client(headers=headers, timeout=_HTTP_SECONDS, trust_env=False)

    def declare(self, count: int) -> list[str]:
        """Declare that many rollouts, and return their ids."""
        found = []
        for number in range(count):
            body = {"vendor": "bench", "product": f"update-{number}", "update_kind": "driver", "version": "2"}
            answer = self._http.post(f"{self._cordon.reports}/v1/rollouts", json=body)
            answer.raise_for_status()
            found.append(str(answer.json()["rollout"]))
        return found

    def hold(self, rollout: str) -> None:
        """Ask for a hold; returns once it is asked, not once it has arrived."""
        answer = self._http.post(f"{self._cordon.streams}/v1/rollouts/{rollout}/hold", json={"reason": "bench"})
        answer.raise_for_status()

    def hold_each(self, rollouts: Sequence[str], arrived: "Synchronized[int]", each: int, pause_seconds: float) -> None:
        """Hold one after the other, each once the one before has arrived at `each` subscribers.

        Raises:
            TimeoutError: it had not, in time.
        """
        for number, rollout in enumerate(rollouts, 1):
            self.hold(rollout)
            deadline = time.monotonic() + EVENT_SECONDS_MAX
            while arrived.value < number * each:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{arrived.value - (number - 1) * each} of {each} subscribers had {rollout}")
                time.sleep(0.01)
            time.sleep(pause_seconds)
