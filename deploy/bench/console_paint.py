"""How soon a page is painted in Chromium: in a tab that is open, and in a new one, beside a page with nothing in it.

A new tab starts a process of the browser's; what that takes by itself on this machine is what the empty page takes,
which a server of its own serves. What Cordon has a part in is the time to the first byte and all that is beyond.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
from playwright.sync_api import BrowserContext, Page, sync_playwright

from deploy.bench.figures import Figure, at_most, printed
from deploy.bench.server import Served
from deploy.bench.signals_decide import percentile

TIMES = 9
BOUND_MS = 300
EMPTY = "empty"
_PAINTED = "() => performance.getEntriesByName('first-contentful-paint').length"
_TIMES = """() => {
    const asked = performance.getEntriesByType('navigation')[0];
    const painted = performance.getEntriesByName('first-contentful-paint')[0];
    return [asked.responseStart, painted.startTime];
}"""


class _Empty(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name that the library calls
        """Answer with a page of one letter."""
        body = b'<!doctype html><html lang="en"><title>empty</title><p>x</p></html>'
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _empty_page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def painted(client: httpx2.Client, cordon: Served, pages: Mapping[str, str]) -> list[Figure]:
    """Return how soon pages are painted, by name and path, for whoever the client has signed in as.

    Raises:
        RuntimeError: there is no Chromium.
    """
    binary = shutil.which("chromium")
    if binary is None:
        raise RuntimeError("chromium is not installed: make deps-system")
    with _empty_page() as empty, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--disable-gpu", "--disable-dev-shm-usage"])
        context = browser.new_context()
        context.add_cookies(
            [{"name": name, "value": value, "url": cordon.streams} for name, value in client.cookies.items()]
        )
        urls = {EMPTY: empty} | {name: cordon.streams + path for name, path in pages.items()}
        new, opened = _in_new_tabs(context, urls), _in_one_tab(context, urls)
        browser.close()
    return [*_figures("an open tab", opened), *_figures("a new tab", new)]


Taken = dict[str, list[tuple[float, float]]]


def _in_new_tabs(context: BrowserContext, urls: Mapping[str, str]) -> Taken:
    taken: Taken = {name: [] for name in urls}
    for _ in range(TIMES):
        for name, url in urls.items():
            page = context.new_page()
            taken[name].append(_looked(page, url))
            page.close()
    return taken


def _in_one_tab(context: BrowserContext, urls: Mapping[str, str]) -> Taken:
    taken: Taken = {name: [] for name in urls}
    page = context.new_page()
    for _ in range(TIMES):
        for name, url in urls.items():
            taken[name].append(_looked(page, url))
    page.close()
    return taken


def _looked(page: Page, url: str) -> tuple[float, float]:
    """Return milliseconds from the navigation's start to the first byte, and to the first paint of content."""
    page.goto(url)
    page.wait_for_function(_PAINTED)
    first_byte, paint = page.evaluate(_TIMES)
    return float(first_byte), float(paint)


def _figures(where: str, taken: Taken) -> list[Figure]:
    figures = []
    for name, times in taken.items():
        paint = percentile([one[1] for one in times], 0.5)
        if name == EMPTY:
            figures.append(printed(f"an empty page painted in {where}, median of {TIMES}", paint, "ms"))
            continue
        figures.append(at_most(f"{name} page painted in {where}, median of {TIMES}", paint, "ms", BOUND_MS))
        first_byte = percentile([one[0] for one in times], 0.5)
        figures.append(printed("of that until the first byte", first_byte, "ms"))
    return figures
