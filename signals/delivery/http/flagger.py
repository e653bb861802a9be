"""Flagger's webhooks: one path that says go, one that says roll back.

Flagger reads the status alone: 200 to 202 is yes, everything else no. So the two questions have paths of their own, and
whatever is wrong (no rollout, a typo, a dead Cordon) is no go on the one and no rollback on the other. Invariant: only
what `effective` says of a known rollout is ever answered with 200.
"""

import base64
import binascii
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from ingest.events import UNREADABLE_ERRORS
from ingest.gateway.refusal import RequestRefusedError
from ingest.operations import Answer, Operation
from ingest.outcome import Refusal
from signals.delivery.answers import TargetError, target_of
from signals.delivery.http.body import read_body
from signals.delivery.http.context import READ_ROLES, Context, answer
from signals.delivery.http.target import facts_of
from signals.killswitch.effective import Effective, EffectiveReason

BODY_BYTES_MAX = 65_536
_Text = Annotated[str, Meta(max_length=256)]


class FlaggerCall(msgspec.Struct, kw_only=True):
    """What Flagger posts to a webhook; what it adds in later releases is ignored.

    Attributes:
        name: of the canary.
        namespace: of the canary.
        phase: of the canary's analysis.
        checksum: of the canary's specification.
        metadata: as the webhook declares it: `rollout`, and `ring`, `os_build`, `model`, `tenant` where they are known.
    """

    name: _Text = ""
    namespace: _Text = ""
    phase: _Text = ""
    checksum: _Text = ""
    metadata: Annotated[dict[str, str], Meta(max_length=16)] = {}


class FlaggerAnswer(msgspec.Struct, kw_only=True):
    """What Cordon says, for the canary's events; Flagger goes by the status.

    Attributes:
        rollout: what was asked about.
        decision: what a rollout system must do.
        reason: why, as a closed word.
        sentence: why, for a person.
        until_ms: when the answer ends by itself; 0: not by itself.
    """

    rollout: str
    decision: DecisionWord
    reason: EffectiveReason
    sentence: str
    until_ms: int


_decoder = msgspec.json.Decoder(FlaggerCall)
_REFUSALS = (Refusal.BAD_REQUEST, Refusal.NOT_FOUND, Refusal.BODY_TOO_LARGE)
_ABOUT = (
    "Flagger sends no headers of its own: put a viewer's token into the URL, as `http://cordon:TOKEN@HOST/...`. The "
    "metadata of the webhook names the rollout."
)
OPERATIONS = (
    Operation(
        "POST",
        "/v1/flagger/gate",
        "flagger_gate",
        "For the hooks confirm-rollout, confirm-traffic-increase and confirm-promotion: go, or wait.",
        (Answer(200, "Go.", FlaggerAnswer), Answer(409, "Wait: held, killed, or no lease.", FlaggerAnswer)),
        roles=READ_ROLES,
        body=FlaggerCall,
        refusals=_REFUSALS,
        description=_ABOUT,
    ),
    Operation(
        "POST",
        "/v1/flagger/rollback",
        "flagger_rollback",
        "For the hook rollback: roll back, or stay.",
        (Answer(200, "Roll back: killed.", FlaggerAnswer), Answer(409, "Stay: it is not killed.", FlaggerAnswer)),
        roles=READ_ROLES,
        body=FlaggerCall,
        refusals=_REFUSALS,
        description=_ABOUT,
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes."""

    async def gate(request: Request) -> Response:
        rollout, found = await _asked(context, request)
        return _said(rollout, found, yes=found.proceed)

    async def rollback(request: Request) -> Response:
        rollout, found = await _asked(context, request)
        return _said(rollout, found, yes=found.killed)

    return [
        Route("/v1/flagger/gate", gate, methods=["POST"]),
        Route("/v1/flagger/rollback", rollback, methods=["POST"]),
    ]


async def _asked(context: Context, request: Request) -> tuple[str, Effective]:
    context.principal_of(_bearer(request.headers.get("authorization")), READ_ROLES)
    data = await read_body(request, BODY_BYTES_MAX)
    try:
        metadata = dict(_decoder.decode(data).metadata)
    except UNREADABLE_ERRORS as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"no call of Flagger's: {error}") from error
    rollout = metadata.pop("rollout", "")
    if not rollout:
        raise RequestRefusedError(Refusal.BAD_REQUEST, "name the rollout: metadata.rollout in the Canary's webhook")
    facts = facts_of(context, rollout)
    try:
        target: Scope = target_of(facts, metadata)
    except TargetError as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"metadata: {error}") from error
    return rollout, context.answers.effective(facts, target)


def _said(rollout: str, found: Effective, *, yes: bool) -> Response:
    said = FlaggerAnswer(
        rollout=rollout,
        decision=found.decision,
        reason=found.reason,
        sentence=found.sentence,
        until_ms=found.until_ms,
    )
    # Not 5xx: Flagger would try again and again before it took it for a no.
    return answer(said, 200 if yes else 409)


def _bearer(header: str | None) -> str | None:
    """Return the header as a token is sent; Go's HTTP client makes Basic credentials of those in a URL."""
    kind, _, credentials = (header or "").partition(" ")
    if kind.lower() != "basic":
        return header
    try:
        _, _, token = base64.b64decode(credentials, validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        return None
    return f"Bearer {token}"
