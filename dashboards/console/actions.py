"""What a person asks for on a page: a form becomes the same command that a post to the API becomes.

Between a form and the command desk. Invariant: the console decides nothing; who may ask, what can be asked and what
became of it are the API's words.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Refusal
from signals.delivery.http.command_bodies import ApproveBody, Body, HoldBody, KillBody, ReleaseBody
from signals.delivery.http.commands import roles_of
from signals.delivery.http.context import PrincipalLike
from signals.events import Action
from signals.killswitch.results import COMMAND_RESULT_DOCS, CommandResult

OFFERED = (Action.HOLD, Action.KILL, Action.RELEASE, Action.APPROVE)
REASON_MAX = 1024
_MINUTES_MAX = 366 * 24 * 60


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody may ask for.

    Attributes:
        hold, kill, release, approve: whether each of them.
    """

    hold: bool
    kill: bool
    release: bool
    approve: bool

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return self.hold or self.kill or self.release or self.approve


def offer_to(principal: PrincipalLike) -> Offer:
    """Return what somebody's roles allow."""
    may = {action: any(role in roles_of(action) for role in principal.roles) for action in OFFERED}
    return Offer(may[Action.HOLD], may[Action.KILL], may[Action.RELEASE], may[Action.APPROVE])


def action_of(word: str) -> Action:
    """Return the action that a form's address names.

    Raises:
        RequestRefusedError: the console offers none of that name.
    """
    found = next((action for action in OFFERED if action.value == word), None)
    if found is None:
        raise RequestRefusedError(Refusal.NOT_FOUND, f"nothing is asked for at {word[:32]!r}")
    return found


def body_of(action: Action, fields: Mapping[str, str]) -> Body:
    """Return what a form says, as the API's body.

    Raises:
        RequestRefusedError: the reason is missing, or a field can't be read.
    """
    reason, scope = fields.get("reason", "").strip(), fields.get("scope", "").strip()
    if not 1 <= len(reason) <= REASON_MAX:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"write a reason of 1 to {REASON_MAX} characters")
    if action is Action.HOLD:
        return HoldBody(reason=reason, scope=scope, for_seconds=_seconds(fields.get("minutes", "").strip()))
    if action is Action.KILL:
        if fields.get("sure") != "yes":
            raise RequestRefusedError(Refusal.BAD_REQUEST, "tick the box: a kill is for good until a release")
        return KillBody(reason=reason, scope=scope)
    if action is Action.RELEASE:
        return ReleaseBody(reason=reason, scope=scope)
    command_id = fields.get("command_id", "").strip()
    if not 1 <= len(command_id) <= 64:
        raise RequestRefusedError(Refusal.BAD_REQUEST, "choose the release that is approved")
    return ApproveBody(reason=reason, command_id=command_id)


def result_sentence(result: str | None) -> str:
    """Return what became of a command, for people."""
    if result is None:
        return "It was asked for; what became of it is not known yet."
    if result in set(CommandResult):
        return COMMAND_RESULT_DOCS[CommandResult(result)]
    return f"What became of it: {result}."


def _seconds(minutes: str) -> int | None:
    if not minutes:
        return None
    if not minutes.isascii() or not minutes.isdigit() or not 1 <= int(minutes[:9]) <= _MINUTES_MAX:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"minutes {minutes[:16]!r}: a whole number, or nothing")
    return int(minutes) * 60
