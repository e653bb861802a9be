"""The streams listener: verdicts, keys, commands and the event stream over HTTP.

The routes stand in `http/`, a module for each thing that is asked for; here they are put together. Handlers decide
nothing: they read views, and a person's word becomes a record of the commands topic. Invariant: an unknown rollout is a
404 and never a default.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ingest.clock import Clock
from ingest.gateway.refusal import RequestRefusedError
from ingest.sight import SightSource
from signals.delivery.http import commands, events, health, verdicts
from signals.delivery.http.context import Authenticate, Context, Refusals
from signals.delivery.service import StreamService

RouteMaker = Callable[[Context], Sequence[Route]]
ROUTES: tuple[RouteMaker, ...] = (health.routes, verdicts.routes, events.routes, commands.routes)


def streams_app(
    service: StreamService, authenticate: Authenticate, clock: Clock, sight: SightSource | None = None
) -> Starlette:
    """Return the application of the streams listener.

    Args:
        service: its live side; the application starts and stops it with its lifespan.
        authenticate: gives the principal of an `Authorization` header, or None.
        clock: stamps commands.
        sight: whether Cordon sees; None where nobody watches, and `/v1/sight` is not served.
    """
    context = Context(service, authenticate, clock, sight)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    refusals = Refusals(service.metrics)
    return Starlette(
        routes=[route for make in ROUTES for route in make(context)],
        lifespan=lifespan,
        exception_handlers={RequestRefusedError: refusals.refused, HTTPException: refusals.http_error},
    )
