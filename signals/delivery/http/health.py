"""Health, public keys and whether Cordon sees."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from signals.delivery.http.context import READ_ROLES, Context, answer


def routes(context: Context) -> list[Route]:
    """Return the routes; `/v1/sight` only where somebody watches."""

    async def healthz(_request: Request) -> Response:
        return answer({"ok": True})

    async def keys(_request: Request) -> Response:
        return Response(context.service.keys.to_json(), media_type="application/jwk-set+json")

    async def sight(request: Request) -> Response:
        assert context.sight is not None
        context.principal(request, READ_ROLES)
        return answer(context.sight.sight())

    found = [Route("/healthz", healthz), Route("/v1/keys", keys)]
    return found if context.sight is None else [*found, Route("/v1/sight", sight)]
