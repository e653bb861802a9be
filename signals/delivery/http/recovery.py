"""How devices of a rollout come back: silent, looping, recovered, by ring and tenant, from the latest verdict."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from detectors.recovery import Recovery, RecoveryRow
from detectors.verdict import Verdict
from ingest.operations import ROLLOUT, Answer, Operation, Parameter
from ingest.outcome import Refusal
from ingest.tenancy import tenant_hash
from signals.delivery.http.context import READ_ROLES, Context, answer, bad_parameters, unknown

PATH = "/v1/rollouts/{rollout}/recovery"


class RolloutRecovery(msgspec.Struct, kw_only=True):
    """What `GET /v1/rollouts/{id}/recovery` answers.

    Attributes:
        at_ms: event time of the verdict that says it; 0 where there is none yet.
        silent: devices of the rollout not heard from for the overdue time, though they should have been.
        looping: those that crashed since they were exposed, and were not quiet since.
        recovered: those that crashed, were heard from since, and are quiet.
        back: almost all of them are back.
        rows: by ring and tenant, those that were asked for, the largest first; at most 64. They add up to the numbers
            above, unless a ring or a tenant was asked for.
    """

    rollout: str
    at_ms: int
    silent: int
    looping: int
    recovered: int
    back: bool
    rows: list[RecoveryRow]


OPERATIONS = (
    Operation(
        "GET",
        PATH,
        "recovery",
        "How devices that a rollout put out of service come back, by ring and tenant.",
        (Answer(200, "As of the latest verdict; zeros while nobody crashed or fell silent.", RolloutRecovery),),
        roles=READ_ROLES,
        parameters=(
            ROLLOUT,
            Parameter("ring", "Only rows of this ring."),
            Parameter("tenant", "Only rows of this tenant, by its name or by `#` and its hash."),
        ),
        refusals=(Refusal.BAD_REQUEST, Refusal.NOT_FOUND),
        description="Tenants stand as `#` and a hash of their name; smaller ones of a ring are one row without.",
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the route."""

    async def recovery(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        if (refused := bad_parameters(request, ("ring", "tenant"))) is not None:
            raise refused
        name = request.path_params["rollout"]
        facts = context.service.views.facts(name)
        if facts is None:
            raise unknown(name)
        asked = request.query_params
        return answer(_told(name, facts.verdict, asked.get("ring"), asked.get("tenant")))

    return [Route(PATH, recovery)]


def _told(rollout: str, verdict: Verdict | None, ring: str | None, tenant: str | None) -> RolloutRecovery:
    found = verdict.recovery if verdict is not None and verdict.recovery is not None else Recovery(
        silent=0, looping=0, recovered=0
    )  # fmt: skip
    wanted = None if tenant is None else tenant if tenant.startswith("#") else f"#{tenant_hash(tenant):x}"
    return RolloutRecovery(
        rollout=rollout,
        at_ms=verdict.at_ms if verdict is not None else 0,
        silent=found.silent,
        looping=found.looping,
        recovered=found.recovered,
        back=found.back,
        rows=[row for row in found.rows if ring in (None, row.ring) and wanted in (None, row.tenant)],
    )
