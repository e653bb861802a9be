"""The streams listener: verdicts, keys, commands and the event stream over HTTP.

The routes stand in `http/`, a module for each thing that is asked for; here they are put together. Handlers decide
nothing: they read views, and a person's word becomes a record of the commands topic. Invariants: an unknown rollout is
a 404 and never a default; and every path is declared for the OpenAPI document that the listener serves.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.clock import Clock
from ingest.events import encoder
from ingest.gateway.refusal import RequestRefusedError
from ingest.openapi import DESCRIBED, document
from ingest.operations import JSON, Operation
from ingest.sight import SightSource
from signals.delivery.http import (
    alerts,
    audit,
    commands,
    events,
    flagger,
    gate,
    health,
    ofrep,
    pagers,
    poll,
    recovery,
    vendors,
    verdicts,
    webhooks,
)
from signals.delivery.http.context import Authenticate, Context, Refusals
from signals.delivery.service import StreamService
from signals.delivery.webhooks.desk import WebhookDesk
from signals.killswitch.lease import LeaseTerms
from signals.vendors.desk import NO_SOURCE, VendorSource

ABOUT = """\
What Cordon decided of each rollout, as signed events and as answers of now; and what people ask of its kill switch.

- Times are integer milliseconds since the Unix epoch, UTC, in fields ending `_ms`.
- A refusal carries one closed `reason`. Readers ignore unknown fields.
"""


class RouteModule(Protocol):
    """What a module of `http/` gives."""

    @property
    def OPERATIONS(self) -> Sequence[Operation]:  # noqa: N802  # a module's constant
        """Return the declaration of everything that the module may serve."""
        ...

    @property
    def routes(self) -> Callable[[Context], Sequence[Route]]:
        """Return what makes its routes."""
        ...


ROUTES: tuple[RouteModule, ...] = (
    health,
    verdicts,
    recovery,
    gate,
    events,
    poll,
    commands,
    audit,
    webhooks,
    pagers,
    vendors,
    flagger,
    ofrep,
    alerts,
)


def described() -> dict[str, Any]:
    """Return the listener's OpenAPI document."""
    operations = [operation for module in ROUTES for operation in module.OPERATIONS]
    return document("Cordon: streams", ABOUT, [*operations, DESCRIBED])


def streams_app(
    service: StreamService,
    authenticate: Authenticate,
    clock: Clock,
    sight: SightSource | None = None,
    terms: LeaseTerms | None = None,
    webhook_desk: WebhookDesk | None = None,
    more_routes: Sequence[Route] = (),
    vendor_source: VendorSource = NO_SOURCE,
) -> Starlette:
    """Return the application of the streams listener.

    Args:
        service: its live side; the application starts and stops it with its lifespan.
        authenticate: gives the principal of an `Authorization` header, or None.
        clock: stamps commands.
        sight: whether Cordon sees; None where nobody watches, and `/v1/sight` is not served.
        terms: of the lane's leases; None where it has none, and then a verdict is the last word.
        webhook_desk: where people ask for webhooks; None where nobody posts any.
        more_routes: what else the listener serves that is no part of its described interface: pages for people.
        vendor_source: what vendors' views are cut from; without one they show what stands now.
    """
    context = Context(service, authenticate, clock, sight, terms, webhook_desk, vendor_source)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    text = encoder.encode(described())

    async def openapi(_request: Request) -> Response:
        return Response(text, media_type=JSON)

    refusals = Refusals(service.metrics)
    return Starlette(
        routes=[
            Route(DESCRIBED.path, openapi),
            *(route for module in ROUTES for route in module.routes(context)),
            *more_routes,
        ],
        lifespan=lifespan,
        exception_handlers={RequestRefusedError: refusals.refused, HTTPException: refusals.http_error},
    )
