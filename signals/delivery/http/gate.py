"""The gate: may this rollout go to its next ring, and what is still needed."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.gateway.refusal import RequestRefusedError
from ingest.operations import ROLLOUT, Answer, Operation, Parameter
from ingest.outcome import Refusal
from signals.delivery.http.context import READ_ROLES, Context, answer, bad_parameters
from signals.delivery.http.target import facts_of
from signals.killswitch.gate_answer import GateDecision, NoSuchRingError, NotNextError

EXCLUDE_MAX = 64
OPERATIONS = (
    Operation(
        "GET",
        "/v1/rollouts/{rollout}/gate",
        "gate",
        "Whether the rollout may go to its next ring, why, what is still needed, and until when the answer holds.",
        (Answer(200, "Whatever the answer is.", GateDecision),),
        roles=READ_ROLES,
        parameters=(
            ROLLOUT,
            Parameter("to", "The next ring, as the rollout declares it.", required=True),
            Parameter("exclude", "A cell that the push leaves out; all others then need more.", repeated=True),
        ),
        refusals=(Refusal.BAD_REQUEST, Refusal.NOT_FOUND, Refusal.CONFLICT),
        description="A ring that is not declared and a cell that is none of its cells are 404; one out of turn is 409.",
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the route."""

    async def gate(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        facts = facts_of(context, request.path_params["rollout"])
        to, exclude = _asked(request)
        try:
            return answer(context.answers.gate(facts, to, exclude))
        except NoSuchRingError as error:
            raise RequestRefusedError(Refusal.NOT_FOUND, str(error)) from error
        except NotNextError as error:
            raise RequestRefusedError(Refusal.CONFLICT, str(error)) from error

    return [Route("/v1/rollouts/{rollout}/gate", gate)]


def _asked(request: Request) -> tuple[str, list[str]]:
    if (refused := bad_parameters(request, {"to", "exclude"})) is not None:
        raise refused
    rings, exclude = request.query_params.getlist("to"), request.query_params.getlist("exclude")
    if len(rings) != 1 or not rings[0]:
        raise RequestRefusedError(Refusal.BAD_REQUEST, "name one ring: ?to=RING")
    if len(exclude) > EXCLUDE_MAX:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"at most {EXCLUDE_MAX} cells can be left out")
    return rings[0], exclude
