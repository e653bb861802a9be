"""Health, public keys and whether Cordon sees."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.operations import Answer, Operation
from ingest.sight import Sight
from signals.delivery.http.context import READ_ROLES, Context, answer

JWKS = "application/jwk-set+json"


class Health(msgspec.Struct, kw_only=True):
    """The listener answers; whether Cordon sees is another question.

    Attributes:
        ok: always true.
    """

    ok: bool = True


class KeySet(msgspec.Struct, kw_only=True):
    """A JSON Web Key Set (RFC 7517 and 8037) of Ed25519 keys.

    Attributes:
        keys: the keys, newest first; `kid` is what a signature's `keyid` names.
    """

    keys: list[dict[str, Any]]


OPERATIONS = (
    Operation("GET", "/healthz", "health", "Whether the listener answers.", (Answer(200, "It does.", Health),)),
    Operation(
        "GET",
        "/v1/keys",
        "keys",
        "The public keys that events and leases are signed with.",
        (Answer(200, "The key set.", KeySet, JWKS),),
    ),
    Operation(
        "GET",
        "/v1/sight",
        "sight",
        "Whether Cordon sees, and if not, what is not seen and why.",
        (Answer(200, "What is seen now.", Sight),),
        roles=READ_ROLES,
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes; `/v1/sight` only where somebody watches."""

    async def healthz(_request: Request) -> Response:
        return answer(Health())

    async def keys(_request: Request) -> Response:
        return Response(context.service.keys.to_json(), media_type=JWKS)

    async def sight(request: Request) -> Response:
        assert context.sight is not None
        context.principal(request, READ_ROLES)
        return answer(context.sight.sight())

    found = [Route("/healthz", healthz), Route("/v1/keys", keys)]
    return found if context.sight is None else [*found, Route("/v1/sight", sight)]
