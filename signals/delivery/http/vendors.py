"""What a vendor's token may ask: the health of its own updates, its incidents, and pairs for a joint test.

Handlers decide nothing: the desk answers. Invariant: whose data it is follows from the token alone, so there is no
name in a path or a parameter by which another's could be asked for.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.gateway.refusal import RequestRefusedError
from ingest.operations import Answer, Operation, Parameter
from ingest.outcome import Refusal
from ingest.store.interface import StoreError
from signals.delivery.http.context import RETRY_AFTER_SECONDS, Context, answer, bad_parameters
from signals.vendors.desk import UnknownDayError, VendorDesk
from signals.vendors.feed import IncidentFeed, atom
from signals.vendors.words import VendorCompatibility, VendorHealth

VENDOR_ROLES = frozenset({"vendor"})
HEALTH = "/v1/vendors/me/health"
COMPATIBILITY = "/v1/vendors/me/compatibility"
FEED = "/v1/vendors/me/incidents.json"
ATOM = "/v1/vendors/me/incidents.atom"
_FEED_MEDIA = "application/feed+json"
_ATOM_MEDIA = "application/atom+xml"
_REFUSALS = (Refusal.BAD_REQUEST, Refusal.OVERLOADED)
_Said = TypeVar("_Said")

OPERATIONS = (
    Operation(
        "GET", HEALTH, "vendor_health",
        "Crash rates of the vendor's products in one whole day, and its rollouts as they stand.",
        (Answer(200, "What may be told; null where that is too few devices or tenants.", VendorHealth),),
        roles=VENDOR_ROLES,
        parameters=(Parameter("day", "A day of `windows`, as 2024-07-19; the last one if left out."),),
        refusals=_REFUSALS,
        description=(
            "No number tells of fewer devices or tenants than `devices_least` and `tenants_least`, nor can one be "
            "computed by subtraction. A day is told three hours after its end and never changes."
        ),
    ),
    Operation(
        "GET", COMPATIBILITY, "vendor_compatibility",
        "Which versions of the vendor's products crash more beside which OS build, model or other product.",
        (Answer(200, "Pairs of enough devices and tenants, findings first.", VendorCompatibility),),
        roles=VENDOR_ROLES, refusals=_REFUSALS,
    ),
    Operation(
        "GET", FEED, "vendor_incidents",
        "Rollouts that were held or killed, of the vendor and of those that share with it both ways, as a JSON Feed.",
        (Answer(200, "The one that moved last first.", IncidentFeed, media=_FEED_MEDIA),),
        roles=VENDOR_ROLES, refusals=(Refusal.BAD_REQUEST,),
    ),
    Operation(
        "GET", ATOM, "vendor_incidents_atom", "The same feed in Atom, RFC 4287.",
        (Answer(200, "The one that moved last first.", media=_ATOM_MEDIA),),
        roles=VENDOR_ROLES, refusals=(Refusal.BAD_REQUEST,),
    ),
)  # fmt: skip


def routes(context: Context) -> list[Route]:
    """Return the routes."""
    desk = VendorDesk(context.service.views, context.clock, context.vendor_source)

    def asked(request: Request, known: tuple[str, ...] = ()) -> frozenset[str]:
        principal = context.principal(request, VENDOR_ROLES)
        if (refused := bad_parameters(request, known)) is not None:
            raise refused
        return frozenset(principal.vendors)

    async def health(request: Request) -> Response:
        vendors, day = asked(request, ("day",)), request.query_params.get("day")
        return answer(await _told(lambda: desk.health(vendors, day)))

    async def compatibility(request: Request) -> Response:
        vendors = asked(request)
        return answer(await _told(lambda: desk.compatibility(vendors)))

    async def feed(request: Request) -> Response:
        vendors = asked(request)
        said = answer(await _told(lambda: desk.incidents(vendors)))
        said.headers["content-type"] = _FEED_MEDIA
        return said

    async def feed_atom(request: Request) -> Response:
        vendors = asked(request)
        found = await _told(lambda: desk.incidents(vendors))
        return Response(atom(found, str(request.url.replace(query=""))), media_type=_ATOM_MEDIA)

    return [Route(HEALTH, health), Route(COMPATIBILITY, compatibility), Route(FEED, feed), Route(ATOM, feed_atom)]


async def _told(ask: Callable[[], _Said]) -> _Said:
    try:
        return await asyncio.to_thread(ask)
    except UnknownDayError as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
    except StoreError as error:
        raise RequestRefusedError(
            Refusal.OVERLOADED, "the store can't answer now: ask again in a moment", RETRY_AFTER_SECONDS
        ) from error
