"""What people post and are answered: the wire types of the command routes, and the part and end that they name.

Beside `commands.py`. Invariant: what can't be read as a part, an end or an action is an error that says what to write,
never a default.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from detectors.scope import WHOLE, Scope, ScopeError
from detectors.verdict import DecisionWord
from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Refusal
from signals.delivery.answers import TargetError, target_of
from signals.delivery.joined import Facts
from signals.events import Action, PendingRelease, SwitchState

YEAR_SECONDS = 366 * 86_400


class _Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    name: Annotated[str, Meta(max_length=60)] = ""
    command_id: Annotated[str, Meta(max_length=64)] = ""


class ArmBody(_Asked, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/arm`.

    Attributes:
        reason: why; it goes into the event and the trail.
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post of the same action on the same part harmless; one is made where it is missing.
    """


class ModeBody(_Asked, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/mute` and `dry-run`.

    Attributes:
        reason: why; it goes into the event and the trail.
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post of the same action on the same part harmless; one is made where it is missing.
        for_seconds: how long it lasts, from when the post is received.
        until_ms: when it ends; give one of the two. A mute needs one.
    """

    for_seconds: Annotated[int, Meta(ge=1, le=YEAR_SECONDS)] | None = None
    until_ms: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None


class KillBody(_Asked, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/kill`.

    Attributes:
        reason: why; it goes into the event and the trail.
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post of the same action on the same part harmless; one is made where it is missing.
        scope: the part that is meant, as text (`ring=canary;os_build=22631`) or as an object; the whole by default.
    """

    scope: str | Scope = ""


class HoldBody(KillBody, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/hold`.

    Attributes:
        reason: why; it goes into the event and the trail.
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post of the same action on the same part harmless; one is made where it is missing.
        scope: the part that is meant, as text (`ring=canary;os_build=22631`) or as an object; the whole by default.
        for_seconds: how long it lasts, from when the post is received; until a release by default.
        until_ms: when it ends; give one of the two, or none.
    """

    for_seconds: Annotated[int, Meta(ge=1, le=YEAR_SECONDS)] | None = None
    until_ms: Annotated[int, Meta(ge=1, le=1 << 53)] | None = None


class ReleaseBody(KillBody, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/release`.

    Attributes:
        reason: why; it goes into the event and the trail.
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post of the same action on the same part harmless; one is made where it is missing.
        scope: the part that is meant, as text (`ring=canary;os_build=22631`) or as an object; the whole by default.
        break_glass: release a kill at once, without the second person; it is marked, logged and counted.
    """

    break_glass: bool = False


class ApproveBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/approve`.

    Attributes:
        command_id: of the release that is approved, as it was answered or as it was given.
        reason: why; it goes into the event and the trail.
        name: who approves, when a token is shared; the token's own name is put beside it.
    """

    command_id: Annotated[str, Meta(min_length=1, max_length=64)]
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    name: Annotated[str, Meta(max_length=60)] = ""


Body = ArmBody | ModeBody | KillBody | HoldBody | ReleaseBody | ApproveBody
BODIES: dict[Action, type[Body]] = {
    Action.HOLD: HoldBody,
    Action.KILL: KillBody,
    Action.RELEASE: ReleaseBody,
    Action.APPROVE: ApproveBody,
    Action.MUTE: ModeBody,
    Action.DRY_RUN: ModeBody,
    Action.ARM: ArmBody,
}


class CommandAnswer(msgspec.Struct, kw_only=True):
    """What became of a command.

    Attributes:
        command_id: of this command; one that was given has a mark of what it is about behind it. An approval names it.
        rollout: what it was about.
        result: a word of the results of commands; null where it was not waited for, or not known in time.
        state: where the switch's last move led, once the result is known.
        decision: what a rollout system must do, once the result is known.
        number: of the switch's last event, once the result is known.
    """

    command_id: str
    rollout: str
    result: str | None
    state: SwitchState | msgspec.UnsetType = msgspec.UNSET
    decision: DecisionWord | msgspec.UnsetType = msgspec.UNSET
    number: int | msgspec.UnsetType = msgspec.UNSET


class PendingReleases(msgspec.Struct, kw_only=True):
    """The releases that wait for a second person, oldest first."""

    pending: list[PendingRelease]


def scope_of(body: Body, facts: Facts) -> Scope:
    """Return the part that a body names, checked as every part that is asked for.

    Raises:
        RequestRefusedError: it is no part, or of a ring that the rollout does not declare.
    """
    if not isinstance(body, KillBody):
        return WHOLE
    try:
        scope = Scope.parse(body.scope) if isinstance(body.scope, str) else body.scope
        return target_of(
            facts, {name: getattr(scope, name) for name in scope.__struct_fields__ if getattr(scope, name)}
        )
    except (ScopeError, TargetError) as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error


def until_of(body: Body, now_ms: int) -> int:
    """Return when what a body asks for ends by itself; 0: not by itself.

    Raises:
        RequestRefusedError: both ways of saying it are used.
    """
    if not isinstance(body, HoldBody | ModeBody):
        return 0
    if body.for_seconds is not None and body.until_ms is not None:
        raise RequestRefusedError(Refusal.BAD_REQUEST, "give for_seconds or until_ms, not both")
    if body.for_seconds is not None:
        return now_ms + body.for_seconds * 1000
    return body.until_ms or 0
