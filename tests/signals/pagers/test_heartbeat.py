"""The heartbeat: sent while Cordon sees, withheld while it does not, and harmless where the other side fails."""

import threading

import httpx2
import pytest

from ingest.metrics import Metrics
from ingest.sight import Cause, Sight, Unseen
from signals.pagers.heartbeat import Heartbeat


class Eyes:
    def __init__(self, seeing: bool = True) -> None:
        self.seeing = seeing

    def sight(self) -> Sight:
        why = [] if self.seeing else [Unseen(share="pipeline", cause=Cause.OLD, detail="blind")]
        return Sight(seeing=self.seeing, why=why)


def test_it_beats_only_while_cordon_sees() -> None:
    came: list[httpx2.Request] = []

    def take(request: httpx2.Request) -> httpx2.Response:
        came.append(request)
        return httpx2.Response(200)

    eyes, metrics = Eyes(), Metrics()
    heart = Heartbeat("https://deadman.example.net/x", 60, eyes, metrics, httpx2.MockTransport(take))
    assert heart.beat() == "sent"
    eyes.seeing = False
    assert heart.beat() == "withheld"
    assert len(came) == 1
    assert str(came[0].url) == "https://deadman.example.net/x"
    assert metrics.value("deadman_beats_total", result="withheld") == 1
    heart.stop()


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_error_of_the_other_side_is_counted_and_stops_nothing(status: int) -> None:
    metrics = Metrics()
    heart = Heartbeat(
        "https://x.example.net", 60, Eyes(), metrics, httpx2.MockTransport(lambda _: httpx2.Response(status))
    )
    assert heart.beat() == "failed"
    assert metrics.value("deadman_beats_total", result="failed") == 1
    heart.stop()


def test_it_goes_on_after_a_failure() -> None:
    beats: list[int] = []
    enough = threading.Event()

    def take(_: httpx2.Request) -> httpx2.Response:
        beats.append(1)
        if len(beats) >= 3:
            enough.set()
        raise httpx2.ConnectError("away")

    heart = Heartbeat("https://x.example.net", 0.01, Eyes(), Metrics(), httpx2.MockTransport(take))
    heart.start()
    assert enough.wait(60)
    heart.stop()
