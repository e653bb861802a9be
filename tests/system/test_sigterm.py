"""SIGTERM: open streams end first, posts under way are answered, and the next start finds everything as it was."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.system import CordonProcess, eventually, running
from support.system_reports import bsod, check_in, declaration, update
from support.system_streams import Listener

END_SECONDS_MAX = 10.0
LINGER_MS = 1500


def state_of(process: CordonProcess) -> dict[str, Any]:
    """Return everything that has to survive a restart, as HTTP tells it."""
    rollouts = process.rollouts()
    keys = process.http.get(f"{process.urls['streams']}/v1/keys").json()
    verdicts = {one["rollout"]: process.verdict(one["rollout"]) for one in rollouts}
    switches = {
        rollout: {name: said[name] for name in ("state", "number", "killed", "held", "decided_by", "decided_reason")}
        for rollout, said in verdicts.items()
    }
    return {"rollouts": rollouts, "keys": keys, "switches": switches}


def fleet_devices(process: CordonProcess) -> int:
    """Return how many devices grouping knows."""
    found = [value for name, value in process.metrics().items() if name.startswith("cordon_fleet_devices{")]
    return int(sum(found))


def test_sigterm_ends_streams_answers_posts_and_loses_nothing(tmp_path: Path) -> None:
    """Streams see their end, lingering posts their answer, the process ends with 0, and a second start goes on."""
    with running(tmp_path / "data", linger_ms=LINGER_MS, crash_tick_ms=0) as process:
        held = process.declare(declaration("sensor", "7.1"))
        process.declare(declaration("driver", "3.0"))
        process.accept([check_in(device, {"contoso/sensor": "7.0"}) for device in range(100)])
        process.accept([update("offered", device, "sensor", "7.1") for device in range(20)])
        assert process.command(held, "hold", "to see what a restart makes of it").status_code == 200
        listener = Listener(process.urls["streams"], process.bearer("rollouts"))
        for _ in eventually(5, "the hold on the stream"):
            if listener.of(held):
                break
        for _ in eventually(5, "the devices in grouping"):
            if fleet_devices(process) == 100:
                break
        before = state_of(process)

        # These linger for 1.5 s when the signal comes.
        with ThreadPoolExecutor(8) as posters:
            batches = [[check_in(1000 + 10 * n + i) for i in range(10)] + [bsod(5000 + n)] for n in range(8)]
            posts = [posters.submit(process.post, batch) for batch in batches]
            for _ in eventually(5, "posts that linger"):
                if process.metric("pending_reports") >= 80:
                    break
            begun = time.monotonic()
            process.terminate()
            answers = [post.result() for post in posts]
        assert [(answer.status_code, answer.json()["accepted"]) for answer in answers] == [(202, 11)] * 8
        assert process.wait(END_SECONDS_MAX) == 0
        assert time.monotonic() - begun < END_SECONDS_MAX
        assert listener.ended_within(1.0)
        assert listener.ended_at is not None
        assert listener.ended_at - begun < 2.0
        assert process.said == ""

        process.start()
        assert state_of(process) == before
        for _ in eventually(10, "the devices of both lives in grouping"):
            if fleet_devices(process) == 100 + 80 + 8:
                break
        process.accept([check_in(9000)])


def test_a_body_half_sent_is_answered_and_no_new_post_is_taken(tmp_path: Path) -> None:
    """A post whose body is on its way when the signal comes gets an answer: taken, or a refusal that says draining."""
    with running(tmp_path / "data") as process:
        signalled = threading.Event()
        report = json.dumps([check_in(1)]).encode()

        def slowly() -> Any:
            yield report[:20]
            assert signalled.wait(10)
            time.sleep(0.2)
            yield report[20:]

        headers = {"content-type": "application/json", **process.bearer("agents")}
        with ThreadPoolExecutor(1) as poster, httpx2.Client(timeout=20, trust_env=False) as client:
            url = f"{process.urls['reports']}/v1/reports"
            post = poster.submit(client.post, url, content=slowly(), headers=headers)
            time.sleep(0.3)
            process.terminate()
            signalled.set()
            answer = post.result()
        assert answer.status_code in (202, 503), answer.text
        if answer.status_code == 503:
            assert answer.json()["reason"] == "draining"
            assert int(answer.headers["retry-after"]) > 0
        assert process.wait(END_SECONDS_MAX) == 0
        with pytest.raises(httpx2.ConnectError):
            process.post([check_in(2)])


def test_sigterm_with_deaf_streams_and_idle_connections_ends_in_time(tmp_path: Path) -> None:
    """Neither subscribers that don't read nor connections kept alive hold up the end."""
    from support.system_streams import DeafSubscribers

    with running(tmp_path / "data") as process:
        process.declare(declaration("sensor", "7.1"))
        with DeafSubscribers(process.urls["streams"], process.bearer("rollouts"), 20):
            for _ in eventually(5, "the open streams"):
                if process.metric("stream_subscribers") == 20:
                    break
            begun = time.monotonic()
            process.terminate()
            assert process.wait(END_SECONDS_MAX) == 0
            assert time.monotonic() - begun < END_SECONDS_MAX
