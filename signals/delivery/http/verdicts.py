"""The latest verdicts, each joined with where its switch stands and whether a lease holds."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.operations import ROLLOUT, Answer, Operation
from ingest.outcome import Refusal
from signals.delivery.http.context import READ_ROLES, Context, answer, bad_parameters
from signals.delivery.http.target import TARGET_PARAMETERS, asked_for, facts_of
from signals.delivery.joined import RolloutVerdict

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
        "What to do with a rollout or a part of it now, and why.",
        (Answer(200, "Of any known rollout, whatever the verdict is.", RolloutVerdict),),
        roles=READ_ROLES,
        parameters=(ROLLOUT, *TARGET_PARAMETERS),
        refusals=(Refusal.BAD_REQUEST, Refusal.NOT_FOUND),
        description=(
            "Shaped for the web metric of Argo Rollouts: always 200 with booleans for a rollout that is known. A part "
            "that is not named is not known, and a stop of any part then counts."
        ),
    ),
    Operation(
        "GET",
        "/v1/verdicts",
        "verdicts",
        "The rollouts whose verdicts came last.",
        (Answer(200, "The newest 500.", Verdicts),),
        roles=READ_ROLES,
        refusals=(Refusal.BAD_REQUEST,),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes."""

    async def verdict(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        facts = facts_of(context, request.path_params["rollout"])
        return answer(context.answers.verdict(facts, asked_for(request, facts)))

    async def verdicts(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        if (refused := bad_parameters(request, ())) is not None:
            raise refused
        return answer(Verdicts(verdicts=context.answers.newest(LISTED_MAX)))

    return [Route("/v1/verdicts", verdicts), Route("/v1/rollouts/{rollout}/verdict", verdict)]
