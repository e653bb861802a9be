"""What an event says of a move, in fields and in a sentence for people.

Pure functions between the state machine and the signature. Invariant: an event carries the whole picture, so that
whoever reads only the last one knows where the rollout and each of its parts stand.
"""

from datetime import UTC, datetime

from detectors.scope import Scope
from detectors.verdict import Verdict
from signals.events import Command, Switch, SwitchState
from signals.killswitch.machine import Ended, Transition
from signals.killswitch.people import Ruling
from signals.killswitch.standing import Standing

_ENDED = {
    Ended.HOLD: "The hold has come to the end that a person gave it.",
    Ended.MUTE: "The mute has come to its end: the detector's word binds again.",
    Ended.DRY_RUN: "The dry run has come to its end: the detector's word binds again.",
}


def switch_of(
    rollout: str, before: Standing, transition: Transition, names: tuple[str, str, str], lane: str, decided_ms: int
) -> Switch:
    """Return the event's data as far as the move alone tells; reasons and names follow."""
    vendor, product, version = names
    return Switch(
        rollout=rollout,
        number=before.number + 1,
        previous_digest=before.digest,
        lane=lane,
        vendor=vendor,
        product=product,
        version=version,
        state=transition.state,
        previous_state=transition.previous_state,
        cause=transition.cause,
        reason="",
        sentence="",
        decided_ms=decided_ms,
        dry_run=transition.dry_run,
        scope=transition.scope,
        until_ms=transition.until_ms,
        **(transition.after.told() | {"decision": transition.decision}),
    )


def by_verdict(switch: Switch, verdict: Verdict, transition: Transition) -> Switch:
    """Complete an event that a verdict caused."""
    said = transition.scoped
    switch.reason = verdict.reason.value if said is None else said.reason.value
    switch.sentence = verdict.sentence if said is None else f"{_part(switch.scope)}: {said.sentence}"
    if said is None and not switch.scope.whole:
        switch.sentence = f"{_part(switch.scope)}: no longer stopped by itself: {verdict.sentence}"
    switch.policy, switch.evidence = verdict.policy, verdict.evidence
    return switch


def by_command(switch: Switch, command: Command, ruled: Ruling) -> Switch:
    """Complete an event that a person caused.

    Args:
        switch: the event's data.
        command: what was asked for.
        ruled: what became of it; with the request that it approves, if it is an approval.
    """
    request = ruled.request
    switch.action, switch.command_id = command.action, command.command_id
    switch.name, switch.principal, switch.reason = command.name, command.principal, command.reason
    until = f" until {_time(command.until_ms)}" if command.until_ms else ""
    about = "" if switch.scope.whole else f" of {_part(switch.scope)}"
    switch.sentence = f"{command.name} asked for {command.action.value}{about}{until}: {command.reason}"
    if request is not None:
        switch.name, switch.principal, switch.reason = request.name, request.principal, request.reason
        switch.approved_by = command.principal
        switch.sentence = (
            f"{request.name} asked for release{about}: {request.reason}; {command.name} approved it: {command.reason}"
        )
    elif ruled.broke_glass:
        switch.break_glass = True
        switch.sentence = f"BREAK-GLASS, no second person: {switch.sentence}"
    return switch


def by_end(switch: Switch, transition: Transition) -> Switch:
    """Complete an event that the time caused."""
    assert transition.ended is not None
    switch.reason = transition.ended.value
    about = "" if switch.scope.whole else f"{_part(switch.scope)}: "
    stands = " The detector's own hold stands." if switch.state is SwitchState.HELD else ""
    switch.sentence = about + _ENDED[transition.ended] + stands
    return switch


def _part(scope: Scope) -> str:
    return f"the part {scope.text}"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
