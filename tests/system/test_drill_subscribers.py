"""A drill goes the real path to a signed kill, and reaches nobody who did not ask: streams, polls, webhooks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.system import CordonProcess, cordon, eventually, running
from support.system_streams import Listener, switch_of

WISHES = ("none", "include", "only")
REAL = {
    "vendor": "contoso",
    "product": "sensor",
    "update_kind": "driver",
    "version": "7.1",
    "rings": [{"name": "canary"}],
}
Told = dict[str, list[tuple[str, int]]]


class Hooks:
    """A receiver of webhooks: keeps what is posted, by path."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        kept = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def at(self, path: str) -> list[tuple[str, int]]:
        """Return rollout and number of the events that came to a path."""
        # A webhook is posted the event itself, not in an envelope.
        events = [json.loads(body)["data"] for came_to, body in list(self.bodies) if came_to == path]
        return [(event["rollout"], event["number"]) for event in events]

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def named(envelope: bytes) -> tuple[str, int]:
    switch = switch_of(envelope)
    return switch["rollout"], switch["number"]


@contextmanager
def hooks() -> Iterator[Hooks]:
    receiver = Hooks()
    try:
        yield receiver
    finally:
        receiver.close()


def subscribe(process: CordonProcess, url: str, wish: str) -> None:
    body = {"url": f"{url}/{wish}"} | ({"drills": wish} if wish != "none" else {})
    answer = process.http.post(f"{process.urls['streams']}/v1/webhooks", json=body, headers=process.bearer("operator"))
    assert answer.status_code == 201, answer.text


def polled(process: CordonProcess, wish: str) -> list[tuple[str, int]]:
    query = "from=start" + ("" if wish == "none" else f"&drills={wish}")
    url = f"{process.urls['streams']}/v1/killswitch/events?{query}"
    answer = process.http.get(url, headers=process.bearer("rollouts"))
    assert answer.status_code == 200, answer.text
    return [named(json.dumps(envelope).encode()) for envelope in answer.json()["events"]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, Told]]:
    """Return a drill's rollout, a real one's that was stopped by hand after it, and what each subscriber was told."""
    data: Path = tmp_path_factory.mktemp("drill") / "data"
    with hooks() as receiver, running(data, webhook_private_targets="127.0.0.0/8") as process:
        listeners = {
            wish: Listener(
                process.urls["streams"],
                process.bearer("rollouts"),
                "from=start" + ("" if wish == "none" else f"&drills={wish}"),
            )
            for wish in WISHES
        }
        for wish in WISHES:
            subscribe(process, receiver.url, wish)
        where = ["--gateway", process.urls["reports"], "--streams", process.urls["streams"]]
        done = cordon("drill", *where, "--data", data, "--json", seconds=150)
        assert done.returncode == 0, done.stdout + done.stderr
        drill = json.loads(done.stdout)["rollout"]
        real = process.declare(REAL)
        for _ in eventually(30, "the rollout is known to the streams listener"):
            if process.command(real, "hold", "a look by hand").status_code in (200, 202):
                break
        # The real rollout's hold is the later event: whoever has it has been told all there was to be told before.
        found: dict[str, Told] = {}
        for _ in eventually(60, "everybody who asked for it has been told"):
            found = {
                "stream": {wish: [named(one) for one in listeners[wish].envelopes] for wish in WISHES},
                "webhook": {wish: receiver.at(f"/{wish}") for wish in WISHES},
                "poll": {wish: polled(process, wish) for wish in WISHES},
            }
            if all(
                real in dict(kind["none"]) and real in dict(kind["include"]) and drill in dict(kind["only"])
                for kind in found.values()
            ):
                break
        for listener in listeners.values():
            listener.leave()
        return drill, real, found


@pytest.mark.parametrize("way", ["stream", "webhook", "poll"])
def test_who_did_not_ask_for_drills_gets_the_real_events_and_none_of_a_drills(
    told: tuple[str, str, dict[str, Told]], way: str
) -> None:
    _, real, found = told
    assert {rollout for rollout, _ in found[way]["none"]} == {real}


@pytest.mark.parametrize("way", ["stream", "webhook", "poll"])
def test_who_asked_for_drills_only_gets_every_event_of_the_drill_and_no_other(
    told: tuple[str, str, dict[str, Told]], way: str
) -> None:
    drill, _, found = told
    assert {rollout for rollout, _ in found[way]["only"]} == {drill}
    numbers = [number for _, number in found[way]["only"]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("way", ["stream", "webhook", "poll"])
def test_who_asked_for_drills_too_gets_both(told: tuple[str, str, dict[str, Told]], way: str) -> None:
    _, _, found = told
    assert set(found[way]["include"]) == {*found[way]["none"], *found[way]["only"]}
