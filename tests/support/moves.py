"""One move of a switch at a time, as the tests of its table ask for it: a verdict's, or a person's."""

from typing import Any

from detectors.scope import Scope
from detectors.verdict import DecisionWord, Reason, ScopedDecision, Verdict
from signals.events import Action
from signals.killswitch.machine import Transition, by_detector
from signals.killswitch.people import by_person
from signals.killswitch.results import CommandResult
from signals.killswitch.standing import PARTS_MAX, Standing
from support.switches import command, verdict


def scoped(scope: Scope, decision: DecisionWord) -> ScopedDecision:
    """Return what a verdict says of one part."""
    return ScopedDecision(
        scope=scope, decision=decision, reason=Reason.KILL_EVIDENCE, sentence="10^9 >= 10^6", log10_evidence=9.0
    )


def with_parts(decision: DecisionWord, *parts: ScopedDecision, **fields: Any) -> Verdict:
    """Return a verdict that names parts."""
    said = verdict(decision, **fields)
    said.scoped = list(parts)
    return said


def moved(standing: Standing, decision: DecisionWord, **fields: Any) -> Transition | None:
    """Return the move that a verdict makes."""
    return by_detector(standing, verdict(decision, **fields))


def asked(standing: Standing, action: Action, **fields: Any) -> Transition:
    """Return the move that a command makes; it has to make one."""
    found = by_person(standing, command(action, "c-1", **fields))
    assert isinstance(found, Transition), found
    return found


def refused(standing: Standing, action: Action, **fields: Any) -> CommandResult:
    """Return why a command moves nothing; it must not."""
    found = by_person(standing, command(action, "c-1", **fields))
    assert isinstance(found, CommandResult), found
    return found


def settled(standing: Standing, said: Verdict) -> Standing:
    """Return where a verdict leads, and hold every move on the way to what it must not do."""
    for _ in range(4 * PARTS_MAX):
        transition = by_detector(standing, said)
        if transition is None:
            return standing
        standing = transition.after
    raise AssertionError("the verdict moves it for ever")
