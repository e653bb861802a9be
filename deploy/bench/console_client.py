"""What looks at a console in the benches: a signed-in client, and many viewers in a process of their own."""

import re
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from urllib.parse import quote, urlsplit

import httpx2

HTTP_SECONDS = 60.0
READ_SECONDS = 0.05
# As the console's script has it.
FLEET_PLOTS, FLEET_SECONDS = ("crash_rate", "check_ins", "os_builds"), 60.0
ROLLOUT_PLOTS, ROLLOUT_SECONDS = ("evidence", "crashes", "ratio", "exposure"), 20.0
ROLLOUT_PAGE = "/rollouts/"
CHANGE_SECONDS = 1.0
_FORM = re.compile(r'name="form" value="([^"]+)"')


def signed_in(url: str, token: str) -> httpx2.Client:
    """Return a client that has signed in by the form.

    Raises:
        RuntimeError: the console did not let it in.
    """
    client = httpx2.Client(base_url=url, timeout=HTTP_SECONDS, trust_env=False)
    found = _FORM.search(client.get("/sign-in").text)
    if found is None:
        raise RuntimeError("the sign-in page has no form")
    answer = client.post("/sign-in", data={"form": found.group(1), "token": token})
    if answer.status_code != 303:
        raise RuntimeError(f"signing in was answered with {answer.status_code}")
    return client


def cookie_of(client: httpx2.Client) -> str:
    """Return the client's cookies as a header."""
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


class Stream:
    """One open live stream, read without waiting."""

    def __init__(self, url: str, cookie: str, page: str) -> None:
        """Open it."""
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname or "", place.port or 80))
        self.socket.sendall(
            f"GET /console/live?page={quote(page, safe='')} HTTP/1.1\r\nhost: {place.netloc}\r\ncookie: {cookie}\r\n"
            f"accept: text/event-stream\r\n\r\n".encode()
        )
        self.heard = 0

    def read(self) -> bytes:
        """Return what has come.

        Raises:
            ConnectionError: the stream ended.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("a live stream ended during the bench")
        self.heard += len(data)
        return data


class Asked:
    """One connection that asks and reads, as a browser's does for its plots."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Take where, and what every request carries; nothing is sent yet."""
        place = urlsplit(url)
        self._connection = HTTPConnection(place.hostname or "", place.port or 80, timeout=HTTP_SECONDS)
        self._headers = dict(headers)

    def get(self, path: str) -> None:
        """Ask for something and read it to its end.

        Raises:
            RuntimeError: it was refused.
        """
        self._ask("GET", path, None, 200)

    def post(self, path: str, body: bytes) -> None:
        """Post JSON; raises like `get`."""
        self._ask("POST", path, body, 202)

    def _ask(self, method: str, path: str, body: bytes | None, expected: int) -> None:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != expected:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}: {data[:200]!r}")


class Changes:
    """What moves on every page, whether somebody looks or not: once a second a rollout is held, or released again."""

    def __init__(self, url: str, token: str, rollouts: Sequence[str]) -> None:
        """Take where, by whose token, and which rollouts take turns."""
        self._asked = Asked(url, {"authorization": f"Bearer {token}", "content-type": "application/json"})
        self._rollouts = rollouts
        self._due = time.monotonic()
        self._count = 0

    def move(self) -> None:
        """Ask for the next one if its time has come."""
        if time.monotonic() < self._due:
            return
        self._due += CHANGE_SECONDS
        turn, place = divmod(self._count, len(self._rollouts))
        self._asked.post(
            f"/v1/rollouts/{self._rollouts[place]}/{'release' if turn % 2 else 'hold'}", b'{"reason": "bench"}'
        )
        self._count += 1


class Plots:
    """The plots of all who look, each asked for as often as the console's own script does."""

    def __init__(self, url: str, cookie: str, pages: Sequence[str]) -> None:
        """Take where, by which session, and what is looked at."""
        self._asked = Asked(url, {"cookie": cookie})
        fleet = [f"/console/plot/{name}" for page in pages if page == "/" for name in FLEET_PLOTS]
        rollouts = [
            f"/console/plot/{name}?rollout={page.removeprefix(ROLLOUT_PAGE)}"
            for page in pages
            if page.startswith(ROLLOUT_PAGE)
            for name in ROLLOUT_PLOTS
        ]
        # Spread over the time, as the plots of browsers that were opened at different times are.
        self._turns = [(fleet, FLEET_SECONDS), (rollouts, ROLLOUT_SECONDS)]
        self._counts = [0, 0]
        self._begun = time.monotonic()

    def ask(self) -> None:
        """Ask for those whose time has come."""
        passed = time.monotonic() - self._begun
        for place, (paths, seconds) in enumerate(self._turns):
            while self._counts[place] < int(passed / seconds * len(paths)):
                self._asked.get(paths[self._counts[place] % len(paths)])
                self._counts[place] += 1


def look(
    url: str, token: str, pages: Sequence[str], moving: Sequence[str], parent: "Connection[object, object]"
) -> None:
    """Look at pages as browsers do, when told to: a stream each, and their plots. Rollouts move all the time.

    It reads bytes and makes nothing of them: what a browser does with a page is done on another machine than Cordon's.

    Args:
        url: of the streams listener.
        token: to sign in with, and to move rollouts.
        pages: one for each viewer.
        moving: rollouts that are held and released by turns.
        parent: sends True to look, False to look away, None to end; gets the bytes that came since all looked.
    """
    cookie, changes = cookie_of(signed_in(url, token)), Changes(url, token, moving)
    while (wanted := _told(parent, changes)) is not None:
        if not wanted:
            parent.send(0)
            continue
        selector = selectors.DefaultSelector()
        streams = [Stream(url, cookie, page) for page in pages]
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while not all(stream.heard for stream in streams):
            _read(selector)
        # What every stream begins with is not what looking on costs.
        for stream in streams:
            stream.heard = 0
        parent.send(len(streams))
        plots = Plots(url, cookie, pages)
        while not parent.poll():
            _read(selector)
            changes.move()
            plots.ask()
        for stream in streams:
            stream.socket.close()
        parent.recv()
        parent.send(sum(stream.heard for stream in streams))


def _told(parent: "Connection[object, object]", changes: Changes) -> object:
    while not parent.poll(READ_SECONDS):
        changes.move()
    return parent.recv()


def _read(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(READ_SECONDS):
        key.data.read()
