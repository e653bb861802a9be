"""The stream of kill-switch events as server-sent events, resumed by Last-Event-ID."""

import asyncio
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import LogUnavailableError
from ingest.operations import Answer, Operation, Parameter
from ingest.outcome import Refusal
from signals.delivery.cursor import CursorError
from signals.delivery.http.context import READ_ROLES, RETRY_AFTER_SECONDS, Context, bad_parameters, unknown
from signals.delivery.wanted import WantedError, wanted_of

PARAMETERS = frozenset({"rollout", "from", "last_event_id", "leases", "drills"})
OPERATIONS = (
    Operation(
        "GET",
        "/v1/killswitch/stream",
        "stream",
        "Every kill-switch event as it is signed, as server-sent events.",
        (Answer(200, "A stream that ends when Cordon stops or the subscriber lags.", media="text/event-stream"),),
        roles=READ_ROLES,
        parameters=(
            Parameter("rollout", "Only this rollout's events."),
            Parameter("from", "Where to begin without a cursor.", Literal["latest", "start"]),
            Parameter("leases", "Send leases too.", Literal["0", "1"]),
            Parameter("drills", "Send drills too, or only them.", Literal["none", "include", "only"]),
            Parameter("last_event_id", "Begin right behind this cursor; wins over `from`."),
            Parameter("Last-Event-ID", "The same, as browsers and event-source clients send it.", where="header"),
        ),
        refusals=(
            Refusal.BAD_REQUEST,
            Refusal.NOT_FOUND,
            Refusal.OVERLOADED,
            Refusal.LOG_UNAVAILABLE,
            Refusal.DRAINING,
        ),
        description=(
            "`event: killswitch` carries one DSSE envelope as `data:`; its `id:` is the cursor right behind it. "
            "With `leases=1`, `event: lease` carries the latest lease of each rollout, without an `id:`. Comments "
            "come as heartbeats."
        ),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes."""
    service = context.service

    async def stream(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        if (refused := bad_parameters(request, PARAMETERS)) is not None:
            raise refused
        rollout = request.query_params.get("rollout")
        if rollout is not None and not service.views.knows(rollout):
            raise unknown(rollout)
        try:
            wanted = wanted_of(request.query_params)
        except WantedError as error:
            raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
        place = await _place(context, request)
        if service.hub.closed:
            raise RequestRefusedError(Refusal.DRAINING, "this process is stopping: connect again", RETRY_AFTER_SECONDS)
        subscriber = service.hub.admit(wanted)
        if subscriber is None:
            raise RequestRefusedError(
                Refusal.OVERLOADED, "as many streams are open as may be (stream_subscribers_max)", RETRY_AFTER_SECONDS
            )
        return service.streams.response(subscriber, place)

    return [Route("/v1/killswitch/stream", stream)]


async def _place(context: Context, request: Request) -> dict[int, int]:
    query = request.query_params
    last_event_id = request.headers.get("last-event-id") or query.get("last_event_id")
    try:
        # Kafka is asked for the log's ends, and may take its time.
        return await asyncio.to_thread(context.service.place, last_event_id, query.get("from", "latest"))
    except CursorError as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
    except LogUnavailableError as error:
        raise RequestRefusedError(
            Refusal.LOG_UNAVAILABLE, f"the log can't be read now: {error}", RETRY_AFTER_SECONDS
        ) from error
