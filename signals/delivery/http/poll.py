"""The events behind a cursor as one JSON answer, waiting for the next one if asked to."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import LogUnavailableError, OffsetGoneError
from ingest.operations import Answer, Operation, Parameter
from ingest.outcome import Refusal
from signals.delivery.cursor import CursorError
from signals.delivery.http.context import READ_ROLES, RETRY_AFTER_SECONDS, Context, answer, unknown
from signals.delivery.http.target import single_parameters
from signals.delivery.hub import Subscriber
from signals.delivery.poll import EventPage, EventPolls
from signals.delivery.wanted import WantedError, wanted_of
from signals.events import Envelope

WAIT_SECONDS_MAX = 60
LIMIT_MAX = 500
_LIMIT = 100
_PARAMETERS = frozenset({"after", "from", "wait", "limit", "rollout", "drills"})


class Events(msgspec.Struct, kw_only=True):
    """One page of kill-switch events.

    Attributes:
        events: DSSE envelopes, as they were signed, in order; empty where none came while it waited.
        next: the cursor right behind the last one: the `after` of the next request.
    """

    events: list[Envelope]
    next: str


OPERATIONS = (
    Operation(
        "GET",
        "/v1/killswitch/events",
        "events",
        "The kill-switch events behind a cursor; waits for the next one if asked to.",
        (Answer(200, "As soon as there are some, or when the wait is over.", Events),),
        roles=READ_ROLES,
        parameters=(
            Parameter("after", "The `next` of an earlier answer, or an `id:` of the stream; wins over `from`."),
            Parameter("from", "Where to begin without a cursor: `latest` by default.", Literal["latest", "start"]),
            Parameter("wait", "Seconds to wait for an event; 0 by default.", Annotated[float, Meta(ge=0, le=60)]),
            Parameter("limit", "How many events, at most; 100 by default.", Annotated[int, Meta(ge=1, le=LIMIT_MAX)]),
            Parameter("rollout", "Only this rollout's events."),
            Parameter("drills", "Drills too, or only them.", Literal["none", "include", "only"]),
        ),
        refusals=(
            Refusal.BAD_REQUEST,
            Refusal.NOT_FOUND,
            Refusal.OVERLOADED,
            Refusal.LOG_UNAVAILABLE,
            Refusal.DRAINING,
        ),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the route."""
    service = context.service
    polls = EventPolls(service.log, service.topics.name("killswitch"), service.hub)

    async def events(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        query = single_parameters(request, _PARAMETERS)
        wait_seconds = _number(query, "wait", 0.0, 0, WAIT_SECONDS_MAX)
        limit = _whole(query, "limit", _LIMIT, LIMIT_MAX)
        if "rollout" in query and not service.views.knows(query["rollout"]):
            raise unknown(query["rollout"])
        if service.hub.closed:
            raise RequestRefusedError(Refusal.DRAINING, "this process is stopping: ask again", RETRY_AFTER_SECONDS)
        try:
            place = await asyncio.to_thread(service.place, query.get("after"), query.get("from", "latest"))
            subscriber = service.hub.admit(wanted_of(query))
            if subscriber is None:
                raise RequestRefusedError(
                    Refusal.OVERLOADED, "as many wait as may (stream_subscribers_max)", RETRY_AFTER_SECONDS
                )
            page = await _unless_gone(request, polls.page(subscriber, place, limit, wait_seconds), subscriber, context)
        except (CursorError, WantedError, OffsetGoneError) as error:
            raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
        except LogUnavailableError as error:
            raise RequestRefusedError(
                Refusal.LOG_UNAVAILABLE, f"the log can't be read now: {error}", RETRY_AFTER_SECONDS
            ) from error
        return answer({"events": [msgspec.Raw(event) for event in page.events], "next": page.next})

    return [Route("/v1/killswitch/events", events)]


async def _unless_gone(request: Request, page: Any, subscriber: Subscriber, context: Context) -> EventPage:
    """Return the page; one whose client has gone is not waited for, so that nobody's place is taken up."""
    finding: asyncio.Task[EventPage] = asyncio.ensure_future(page)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((finding, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not finding.done():
            raise RequestRefusedError(Refusal.BAD_REQUEST, "the client has gone")
        return finding.result()
    finally:
        context.service.hub.leave(subscriber)
        for task in (finding, leaving):
            task.cancel()
        await asyncio.gather(finding, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _number(query: dict[str, str], name: str, default: float, least: float, most: float) -> float:
    try:
        number = float(query.get(name, default))
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"{name} is a number from {least:g} to {most:g}")
    return number


def _whole(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= most:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"{name} is a whole number from 1 to {most}")
    return int(text)
