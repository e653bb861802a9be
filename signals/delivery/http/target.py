"""Which part of which rollout a request is about, for every route that answers for a part.

Invariant: a parameter that is unknown or comes twice is an error, never left aside.
"""

from collections.abc import Collection

from starlette.requests import Request

from detectors.scope import Scope
from ingest.gateway.refusal import RequestRefusedError
from ingest.operations import Parameter
from ingest.outcome import Refusal
from signals.delivery.answers import TARGET_FIELDS, TargetError, target_of
from signals.delivery.http.context import Context, bad_parameters, unknown
from signals.delivery.joined import Facts

_DOCS = {
    "ring": "Only this ring; it has to be one that the rollout declares.",
    "os_build": "Only this OS build, such as `22631.3880`, or build family, such as `22631`.",
    "model": "Only this device model.",
    "tenant": "Only this tenant.",
}
TARGET_PARAMETERS = tuple(Parameter(name, _DOCS[name]) for name in TARGET_FIELDS)


def facts_of(context: Context, rollout: str) -> Facts:
    """Return what is known of a rollout.

    Raises:
        RequestRefusedError: nothing is.
    """
    facts = context.service.views.facts(rollout)
    if facts is None:
        raise unknown(rollout)
    return facts


def asked_for(request: Request, facts: Facts) -> Scope:
    """Return the part of the rollout that the query names; what it does not name is not known.

    Raises:
        RequestRefusedError: an unknown parameter, one that comes twice, or a part that can't be.
    """
    query = single_parameters(request, TARGET_FIELDS)
    try:
        return target_of(facts, query)
    except TargetError as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error


def single_parameters(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the query parameters by name.

    Raises:
        RequestRefusedError: one that the path does not take, or one that comes twice.
    """
    if (refused := bad_parameters(request, known)) is not None:
        raise refused
    pairs = request.query_params.multi_items()
    if len(pairs) != len(request.query_params):
        raise RequestRefusedError(Refusal.BAD_REQUEST, "a parameter comes twice: give each once")
    return dict(pairs)
