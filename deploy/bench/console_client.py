"""What looks at a console in the benches: a signed-in client, and many viewers in a process of their own."""

import re
import selectors
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from urllib.parse import quote, urlsplit

import httpx2

HTTP_SECONDS = 60.0
PLOT_SECONDS = 60.0
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


def look(url: str, token: str, pages: Sequence[str], parent: "Connection[object, object]") -> None:
    """Look at pages as browsers do, when told to: a stream each, and the fleet's plots once a minute.

    Args:
        url: of the streams listener.
        token: to sign in with.
        pages: one for each viewer.
        parent: sends True to look, False to look away, None to end; gets the bytes that came, each time.
    """
    client = signed_in(url, token)
    cookie = cookie_of(client)
    while (wanted := parent.recv()) is not None:
        if not wanted:
            parent.send(0)
            continue
        selector = selectors.DefaultSelector()
        streams = [Stream(url, cookie, page) for page in pages]
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while not all(stream.heard for stream in streams):
            _read(selector)
        parent.send(len(streams))
        plots = [name for page in pages if page == "/" for name in ("crash_rate", "check_ins", "os_builds")]
        begun, asked, many = time.monotonic(), 0, len(plots)
        while not parent.poll():
            _read(selector)
            # Spread over the time, as the plots of browsers that were opened at different times are.
            due = int((time.monotonic() - begun) / PLOT_SECONDS * many)
            while asked < due:
                client.get(f"/console/plot/{plots[asked % many]}").raise_for_status()
                asked += 1
        for stream in streams:
            stream.socket.close()
        parent.recv()
        parent.send(sum(stream.heard for stream in streams))


def _read(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(0.02):
        key.data.read()
