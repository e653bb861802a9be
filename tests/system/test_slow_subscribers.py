"""Subscribers that never read hold up nobody: neither those who post nor those who listen."""

import time
from pathlib import Path

from support.system import eventually, running
from support.system_reports import bsod, check_in, declaration
from support.system_streams import DeafSubscribers, Listener

DEAF = 40
POSTS = 200
EVENTS = 120


def test_deaf_subscribers_hold_up_nobody(tmp_path: Path) -> None:
    """200 posts go by 40 deaf streams as fast as without them, and one who listens gets every event in order."""
    with running(tmp_path / "data", stream_queue_max=16, linger_ms=5) as process:
        rollout = process.declare(declaration("sensor", "7.1"))
        streams, headers = process.urls["streams"], process.bearer("rollouts")
        with DeafSubscribers(streams, headers, DEAF):
            listener = Listener(streams, headers)
            for _ in eventually(5, "the open streams"):
                if process.metric("stream_subscribers") == DEAF + 1:
                    break
            seconds = []
            for number in range(POSTS):
                begun = time.monotonic()
                process.accept([bsod(number) if number % 10 == 0 else check_in(number)])
                seconds.append(time.monotonic() - begun)
                if number * EVENTS // POSTS > (number - 1) * EVENTS // POSTS:
                    reason = f"event after post {number}"
                    kill = number * EVENTS // POSTS % 2 == 0
                    moved = process.command(rollout, "kill", reason) if kill else process.release(rollout, reason)
                    assert moved.status_code == 200
            for _ in eventually(10, "all events"):
                if len(listener.envelopes) == EVENTS:
                    break
            assert [event["number"] for event in listener.switches] == list(range(1, EVENTS + 1))
            seconds.sort()
            assert seconds[POSTS // 2] < 0.1, seconds[-5:]
            assert seconds[POSTS * 98 // 100] < 1.0, seconds[-5:]
            listener.leave()
        for _ in eventually(10, "the end of the deaf streams"):
            if process.metric("stream_subscribers") <= 1:
                break


def test_one_subscriber_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    """Streams are bounded: the one beyond is refused with a time to try again, and a place that frees is given."""
    with running(tmp_path / "data", stream_subscribers_max=3) as process:
        streams, headers = process.urls["streams"], process.bearer("rollouts")
        with DeafSubscribers(streams, headers, 3):
            for _ in eventually(5, "the open streams"):
                if process.metric("stream_subscribers") == 3:
                    break
            refused = process.http.get(f"{streams}/v1/killswitch/stream", headers=headers)
            assert refused.status_code == 503
            assert refused.json()["reason"] == "overloaded"
            assert int(refused.headers["retry-after"]) > 0
        for _ in eventually(10, "a free place"):
            if process.metric("stream_subscribers") == 0:
                break
        Listener(streams, headers).leave()
