"""The latest verdicts, each joined with where its switch stands."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.operations import ROLLOUT, Answer, Operation
from ingest.outcome import Refusal
from signals.delivery.http.context import READ_ROLES, Context, answer, unknown
from signals.delivery.views import RolloutVerdict

LISTED_MAX = 500


class Verdicts(msgspec.Struct, kw_only=True):
    """The rollouts whose verdicts came last.

    Attributes:
        verdicts: newest first, at most 500.
    """

    verdicts: list[RolloutVerdict]


OPERATIONS = (
    Operation(
        "GET",
        "/v1/rollouts/{rollout}/verdict",
        "verdict",
        "The latest verdict, joined with where the rollout's switch stands.",
        (Answer(200, "Of any known rollout, whatever the verdict is.", RolloutVerdict),),
        roles=READ_ROLES,
        parameters=(ROLLOUT,),
        refusals=(Refusal.NOT_FOUND,),
    ),
    Operation(
        "GET",
        "/v1/verdicts",
        "verdicts",
        "The rollouts whose verdicts came last.",
        (Answer(200, "The newest 500.", Verdicts),),
        roles=READ_ROLES,
    ),
)


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
        return answer(Verdicts(verdicts=context.service.views.newest(LISTED_MAX)))

    return [Route("/v1/verdicts", verdicts), Route("/v1/rollouts/{rollout}/verdict", verdict)]
