"""The console's bench: its viewers ask for what browsers ask for, as often, and its figures hold what falls short."""

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dashboards.console import plots
from dashboards.console.rendering import FOLDER
from deploy.bench import console_client, console_viewers
from deploy.bench.console_client import Asked, Changes, Plots

SCRIPT = (FOLDER / "static" / "plots.js").read_text()


class Server(ThreadingHTTPServer):
    """Answers everything with one status, and keeps what was asked."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = _answer  # noqa: N815  # the names that the library calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_viewers_ask_for_the_plots_that_the_pages_have_as_often_as_their_script() -> None:
    assert set(console_client.FLEET_PLOTS) == set(plots.FLEET_PLOTS)
    assert set(console_client.ROLLOUT_PLOTS) == set(plots.ROLLOUT_PLOTS)
    paces = {name: int(value) for name, value in re.findall(r"(\w+)_AGAIN_MS = (\d+)", SCRIPT)}
    assert paces == {
        "FLEET": 1000 * console_client.FLEET_SECONDS,
        "ROLLOUT": 1000 * console_client.ROLLOUT_SECONDS,
    }


def test_in_a_page_s_period_each_of_its_plots_is_asked_for_once(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asking = Plots(url, "", ["/", "/rollouts", "/rollouts/r-1"])
    for now[0] in (10.0, 19.0, 20.0):
        asking.ask()
    assert sorted(path for path in server.asked if "rollout=" in path) == sorted(
        f"/console/plot/{name}?rollout=r-1" for name in plots.ROLLOUT_PLOTS
    )
    now[0] = 60.0
    asking.ask()
    assert sorted(path for path in server.asked if "rollout=" not in path) == sorted(
        f"/console/plot/{name}" for name in plots.FLEET_PLOTS
    )


def test_rollouts_move_once_a_second_and_are_released_after_all_were_held(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    server.status = 202
    changes = Changes(url, "token", ["r-1", "r-2"])
    for now[0] in (0.0, 0.5, 1.0, 2.0, 3.0):
        changes.move()
    assert server.asked == [f"/v1/rollouts/{one}" for one in ("r-1/hold", "r-2/hold", "r-1/release", "r-2/release")]


def test_what_is_refused_ends_the_bench(server: Server, url: str) -> None:
    server.status = 403
    with pytest.raises(RuntimeError, match="GET /console/plot/x was answered with 403"):
        Asked(url, {}).get("/console/plot/x")


@pytest.mark.parametrize(("with_viewers", "ok"), [(950.0, True), (949.0, False)])
def test_the_bound_is_on_the_throughput_that_is_kept(with_viewers: float, ok: bool) -> None:
    alone = console_viewers._Arm([1000.0] * 3, [10.0] * 3, [0.0] * 3)
    looked = console_viewers._Arm([with_viewers] * 3, [11.0] * 3, [0.01] * 3, [1e6] * 3)
    figures = console_viewers._figures(alone, looked, 0.1)
    bounded = [figure for figure in figures if figure.bound]
    assert [(figure.value, figure.ok) for figure in bounded] == [(with_viewers / 1000, ok)]
    assert {figure.value for figure in figures} >= {1.1, 1.0, 0.1}
