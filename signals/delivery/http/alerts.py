"""Alerts on crash patterns that belong to no rollout: for people, and no word on any rollout."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.operations import Answer, Operation
from ingest.outcome import Refusal
from signals.delivery.alerts import Alerts
from signals.delivery.http.context import READ_ROLES, Context, answer, bad_parameters

OPERATIONS = (
    Operation(
        "GET",
        "/v1/alerts",
        "alerts",
        "Crash patterns beyond the usual that belong to no rollout, and how the watch for them stands.",
        (Answer(200, "Open alerts first, then those that ended last.", Alerts),),
        roles=READ_ROLES,
        refusals=(Refusal.BAD_REQUEST,),
        description="For people: no alert holds or kills anything, whatever it says.",
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the route."""

    async def alerts(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        if (refused := bad_parameters(request, ())) is not None:
            raise refused
        return answer(context.service.alerts.now())

    return [Route("/v1/alerts", alerts)]
