"""The latest verdicts, each joined with where its switch stands."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from signals.delivery.http.context import READ_ROLES, Context, answer, unknown

LISTED_MAX = 500


def routes(context: Context) -> list[Route]:
    """Return the routes."""

    async def verdict(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        rollout = request.path_params["rollout"]
        found = context.service.views.verdict(rollout)
        if found is None:
            raise unknown(rollout)
        return answer(found)

    async def verdicts(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        return answer({"verdicts": context.service.views.newest(LISTED_MAX)})

    return [Route("/v1/verdicts", verdicts), Route("/v1/rollouts/{rollout}/verdict", verdict)]
