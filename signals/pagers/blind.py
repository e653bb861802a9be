"""The incident of whoever runs Cordon: rollouts that are held because Cordon can't see, folded into one.

Used by the outbox. Invariant: however many rollouts are held for want of sight, in a partition they are one incident.
"""

from typing import Final

from msgspec.structs import replace

from detectors.verdict import DecisionWord, Reason
from signals.events import SwitchState
from signals.pagers import incident as incidents
from signals.pagers.case import Rules, terms_of
from signals.pagers.records import Incident, Page, PageCase
from signals.pagers.registry import DEFAULT_OWNER
from signals.pagers.words import Level, Role

OPERATOR: Final = "cordon"


def blind_case(case: PageCase, held: int, lane: str, rules: Rules, now_ms: int) -> PageCase:
    """Return the case after so many rollouts are held for want of sight; none: it is over after a calm time."""
    level = Level.HIGH if held else Level.NONE
    page = Page(
        level=level,
        role=Role.OPERATOR,
        rollout=case.rollout,
        vendor=OPERATOR,
        product=OPERATOR,
        version="",
        state=SwitchState.HELD.value,
        decision=DecisionWord.HOLD.value,
        reason=Reason.NO_TELEMETRY.value,
        rollouts=held,
        decided_ms=now_ms,
        lane=lane,
        resolved_by="" if held else "recovered",
    )
    found = case.incidents[0] if case.incidents else Incident(owner=DEFAULT_OWNER, role=Role.OPERATOR)
    told = incidents.tell(found, level, page, now_ms, terms_of(rules, case, DEFAULT_OWNER, now_ms))
    return replace(case, level=level, incidents=[told])
