"""What the routes answer of now: facts from the views, judged by the wall clock and by whether Cordon sees.

Between the views and every route that tells a rollout system what to do. Invariants: an unknown rollout has no answer;
and a ring that its rollout does not declare, or a build that no device could report, is an error, never a wide match.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from detectors.scope import Scope, ScopeError
from ingest.clock import Clock
from ingest.events import os_build_ok
from ingest.sight import SightSource
from signals.delivery.joined import Facts, RolloutVerdict, effective_of, rollout_verdict
from signals.delivery.views import Views
from signals.killswitch.effective import Effective
from signals.killswitch.gate_answer import GateDecision, GateQuestion, avoiding, gate_answer, next_ring
from signals.killswitch.lease import LeaseTerms

TARGET_FIELDS = Scope.__struct_fields__


class TargetError(Exception):
    """The part that was asked for can't be one; the message says what to write."""


class Answers:
    """Answers for one lane; any thread."""

    def __init__(self, views: Views, clock: Clock, terms: LeaseTerms | None, sight: SightSource | None) -> None:
        """Take what is known, and by what it is judged.

        Args:
            views: the latest of each rollout.
            clock: the wall clock.
            terms: of the lane's leases; None where it has none.
            sight: whether Cordon sees; None where nobody watches.
        """
        self._views, self._clock, self._terms, self._sight = views, clock, terms, sight

    def verdict(self, facts: Facts, target: Scope) -> RolloutVerdict:
        """Return the verdict joined with switch and lease, for a part of the rollout."""
        return rollout_verdict(facts, target, self._clock.now_ms(), self._terms, seeing=self._seeing())

    def newest(self, most: int) -> list[RolloutVerdict]:
        """Return the rollouts whose verdicts came last, newest first."""
        now_ms, seeing = self._clock.now_ms(), self._seeing()
        facts = [self._views.facts(rollout) for rollout in self._views.newest(most)]
        whole = Scope()
        return [rollout_verdict(found, whole, now_ms, self._terms, seeing=seeing) for found in facts if found]

    def effective(self, facts: Facts, target: Scope) -> Effective:
        """Return what a rollout system must do with a part of the rollout."""
        return effective_of(facts, target, self._clock.now_ms(), self._terms)

    def gate(self, facts: Facts, to: str, exclude: Collection[str]) -> GateDecision:
        """Return whether the rollout may go to its next ring.

        Raises:
            GateError: the ring is not the next one as declared, or a cell to leave out is none of its cells.
        """
        now_ms = self._clock.now_ms()
        rings = facts.declared.rings if facts.declared else []
        report = facts.verdict.gate if facts.verdict else None
        # Without leases the lane's clock may be a replay's, and only verdicts tell where it stands.
        at_ms = facts.verdict.at_ms if facts.verdict and self._terms is None else now_ms
        question = GateQuestion(facts.rollout, to, exclude, rings, report, at_ms)
        next_ring(question)
        switch, lease = avoiding(facts.switch, facts.lease, exclude)
        kept = replace(facts, switch=switch, lease=lease)
        return gate_answer(question, effective_of(kept, Scope(ring=to), now_ms, self._terms))

    def _seeing(self) -> bool:
        return self._sight is None or self._sight.sight().seeing


def target_of(facts: Facts, fields: Mapping[str, str]) -> Scope:
    """Return the part of a rollout that the fields `ring`, `os_build`, `model` and `tenant` name.

    Raises:
        TargetError: a value is empty or malformed, or the rollout declares no such ring.
    """
    for name, value in fields.items():
        if name not in TARGET_FIELDS:
            raise TargetError(f"no such field: {name[:64]}; there are {', '.join(TARGET_FIELDS)}")
        if not value:
            raise TargetError(f"{name} is empty: leave it out where it is not known")
    try:
        target = Scope(**dict(fields))
    except ScopeError as error:
        raise TargetError(str(error)) from error
    if target.os_build and not os_build_ok(target.os_build):
        raise TargetError(f"os_build {target.os_build!r}: write a build and optional revision, such as 22631.3880")
    rings = [ring.name for ring in facts.declared.rings] if facts.declared else []
    if target.ring and target.ring not in rings:
        declared = f"it declares {', '.join(rings)}" if rings else "it declares no rings, so leave ring out"
        raise TargetError(f"rollout {facts.rollout} has no ring {target.ring!r}: {declared}")
    return target
