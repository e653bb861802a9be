"""What the reports listener serves, declared for its OpenAPI document.

The handlers stand in `app.py`. The invariant, held by a test: a path is served if and only if it is declared here.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ingest.events import Report, TimeMs
from ingest.gateway.gateway import Driven
from ingest.gateway.tenants import Role
from ingest.openapi import DESCRIBED, document
from ingest.operations import JSON, ROLLOUT, Answer, Operation, Parameter
from ingest.outcome import Outcome, Refusal
from ingest.planning import Advice, AdvisedRollout
from ingest.rollouts import Rollout, RolloutDeclaration

NDJSON = "application/x-ndjson"
PAGE_MAX = 500
ABOUT = """\
Where devices, collectors and rollout systems tell Cordon what happened and what is about to.

- Times are integer milliseconds since the Unix epoch, UTC, in fields ending `_ms`.
- A refusal carries one closed `reason`. Readers ignore unknown fields.
- Bodies may be compressed: `Content-Encoding: gzip` or `zstd`.
"""
READ_ROLES = (Role.ROLLOUT, Role.OPERATOR)
_BODY = (
    Refusal.BAD_REQUEST,
    Refusal.BODY_TOO_LARGE,
    Refusal.UNSUPPORTED_MEDIA_TYPE,
    Refusal.UNSUPPORTED_ENCODING,
    Refusal.OVERLOADED,
)
_LOG = (Refusal.LOG_UNAVAILABLE, Refusal.SPOOL_FULL, Refusal.DRAINING)


class ClockBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/clock`.

    Attributes:
        at_ms: where the lane's clock is driven to.
        wait_for_ms: answer once everything received before this time has been through to the kill switch.
    """

    at_ms: TimeMs
    wait_for_ms: TimeMs | None = None


class RefusedReport(msgspec.Struct, kw_only=True):
    """One report of a post that was not taken.

    Attributes:
        index: its place in the post, from 0.
        reason: why, as a closed word.
        detail: what was wrong with it.
    """

    index: int
    reason: Outcome
    detail: str


class Posted(msgspec.Struct, kw_only=True):
    """What became of a post.

    Attributes:
        accepted: how many of its reports are durably in the log.
        refused: those that are not, with the reason of each.
        next_check_in_s: seconds after which the device should check in again.
    """

    accepted: int
    refused: list[RefusedReport]
    next_check_in_s: int


class RolloutPage(msgspec.Struct, kw_only=True):
    """One page of rollouts.

    Attributes:
        rollouts: sorted by id.
        next: the `after` of the next page; null on the last.
    """

    rollouts: list[Rollout]
    next: str | None


class Alive(msgspec.Struct, kw_only=True):
    """The event loop turns.

    Attributes:
        status: always `ok`.
    """

    status: str


class Ready(msgspec.Struct, kw_only=True):
    """Whether posts would be taken now.

    Attributes:
        ready: they would.
        problems: why not, in words.
        spooling: posts wait in the spool for the log, with their numbers; left out without a spool.
    """

    ready: bool
    problems: list[str]
    spooling: Any | msgspec.UnsetType = msgspec.UNSET


OPERATIONS = (
    Operation(
        "POST",
        "/v1/reports",
        "reports",
        "Post reports of devices: one, an array of them, or one a line.",
        (
            Answer(202, "What became of each; at least one was accepted, or none was sent.", Posted),
            Answer(400, "Every report was refused, and `refused` says why.", Posted),
        ),
        roles=(Role.REPORT,),
        body=Report | list[Report],
        body_media=(JSON, NDJSON),
        refusals=(*_BODY, Refusal.TOO_MANY_REPORTS, Refusal.THROTTLED, *_LOG),
    ),
    Operation(
        "POST",
        "/v1/rollouts",
        "declare",
        "Declare a rollout: what is shipped, to whom, from when.",
        (
            Answer(201, "It is new, and durable.", AdvisedRollout),
            Answer(200, "It was known; the same declaration again changes nothing.", AdvisedRollout),
        ),
        roles=(Role.ROLLOUT,),
        body=RolloutDeclaration,
        refusals=(*_BODY, Refusal.CONFLICT, *_LOG),
    ),
    Operation(
        "GET",
        "/v1/rollouts",
        "rollouts",
        "The rollouts, page by page.",
        (Answer(200, "One page.", RolloutPage),),
        roles=READ_ROLES,
        parameters=(
            Parameter("after", "Begin behind this id."),
            Parameter("limit", "How many, at most.", Annotated[int, Meta(ge=1, le=PAGE_MAX)]),
        ),
        refusals=(Refusal.BAD_REQUEST,),
    ),
    Operation(
        "GET",
        "/v1/rollouts/{rollout}",
        "rollout",
        "One rollout, as it was declared or discovered.",
        (Answer(200, "The rollout.", Rollout),),
        roles=READ_ROLES,
        parameters=(ROLLOUT,),
        refusals=(Refusal.NOT_FOUND,),
    ),
    Operation(
        "GET",
        "/v1/rollouts/{rollout}/plan",
        "plan",
        "How fast to push a rollout, and how much at a time, so that Cordon can decide in time.",
        (Answer(200, "The advice; it changes nothing.", Advice),),
        roles=READ_ROLES,
        parameters=(ROLLOUT,),
        refusals=(Refusal.NOT_FOUND,),
    ),
    Operation(
        "POST",
        "/v1/clock",
        "clock",
        "Drive the clock of a lane that is not live.",
        (Answer(200, "Where the clock and the stages behind stand.", Driven),),
        roles=(Role.DRIVE,),
        body=ClockBody,
        refusals=(*_BODY, Refusal.CONFLICT),
    ),
    Operation("GET", "/healthz", "health", "Whether the listener answers.", (Answer(200, "It does.", Alive),)),
    Operation(
        "GET",
        "/readyz",
        "ready",
        "Whether posts would be taken, and if not why.",
        (Answer(200, "They would.", Ready), Answer(503, "They would not; `problems` says why.", Ready)),
    ),
    Operation(
        "GET",
        "/metrics",
        "metrics",
        "The process's metrics.",
        (Answer(200, "Prometheus text format.", media="text/plain; version=0.0.4"),),
    ),
)


def described() -> dict[str, Any]:
    """Return the listener's OpenAPI document."""
    return document("Cordon: reports", ABOUT, [*OPERATIONS, DESCRIBED])
