"""A console on the streams listener, with a log in memory behind it, and the ways that its tests look at it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from dashboards.console.app import ConsoleParts, console_routes
from dashboards.console.history import MemoryRows
from dashboards.console.session import COOKIE
from ingest.topics import LIVE_LANE
from signals.delivery.app import streams_app
from signals.killswitch.lease import LeaseTerms
from support.streams import OPERATOR, StreamRig, authenticate

KEY = bytes(range(32))
_FORM = re.compile(r'name="form" value="([^"]+)"')


class ConsoleRig(StreamRig):
    """A streams listener that serves the console."""

    def __init__(self, rows: MemoryRows | None = None, *, viewers_max: int = 10) -> None:
        super().__init__()
        self.rows = rows
        terms = LeaseTerms()
        parts = ConsoleParts(
            service=self.service,
            authenticate=authenticate,
            clock=self.clock,
            key=KEY,
            lane=LIVE_LANE,
            viewers_max=viewers_max,
            sight=self,
            terms=terms,
            rows=rows,
        )
        self.app = streams_app(self.service, authenticate, self.clock, self, terms, more_routes=console_routes(parts))

    @contextmanager
    def browser(self, token: str | None = OPERATOR) -> Iterator[httpx2.Client]:
        """Give a client that keeps cookies, signed in by the form; None: by nobody."""
        with httpx2.Client(base_url=self.url, timeout=20, verify=False) as client:
            if token is not None:
                answer = client.post("/sign-in", data={"form": form_in(client.get("/sign-in").text), "token": token})
                assert answer.status_code == 303, answer.text
                assert COOKIE in client.cookies
            yield client

    def ask_for(self, client: httpx2.Client, rollout: str, action: str, **fields: str) -> httpx2.Response:
        """Post a form of a rollout's page, as that page gives it."""
        secret = form_in(client.get(f"/rollouts/{rollout}").text)
        return client.post(f"/rollouts/{rollout}/{action}", data={"form": secret, "reason": "pager 4711", **fields})


def form_in(html: str) -> str:
    """Return the secret that a page's forms bring along."""
    found = _FORM.search(html)
    assert found is not None, html
    return found.group(1)


@contextmanager
def console(rows: MemoryRows | None = None, *, viewers_max: int = 10) -> Iterator[ConsoleRig]:
    """Run a console for the length of a block."""
    rig = ConsoleRig(rows, viewers_max=viewers_max)
    rig.begin()
    try:
        yield rig
    finally:
        rig.end()
