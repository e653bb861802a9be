"""All that a report is made of: the answers of the store and the trail, with decisions judged.

A plain value between `gather`, which asks, and the parts that tell. Invariant: it holds no clock; the same answers give
the same value.
"""

from dataclasses import dataclass, field
from functools import cached_property

from dashboards.incident.decisions import Decision, believed
from dashboards.incident.rows import PageRow, Point, Reach, Reason, RecoveryPart, RecoveryPoint, SignatureRow
from detectors.policy import Policy
from detectors.verdict import DecisionWord, Evidence, Verdict
from ingest.rollouts import Rollout
from signals.events import AuditEntry, Switch


@dataclass(frozen=True)
class Trail:
    """The audit trail as far as it is about the rollout.

    Attributes:
        entries: about it, in order.
        faults: what is wrong with the chain of its partition, or with an entry against its event; empty: all is whole.
        read: how many entries of the partition were checked.
    """

    entries: list[AuditEntry]
    faults: list[str]
    read: int


@dataclass(frozen=True)
class Material:
    """What is known of one rollout.

    Attributes:
        lane: of the installation.
        rollout: as it was last declared or discovered.
        decisions: every stored event, believed or not.
        reasons: what the statistics said, by reason.
        latest: the last verdict in the report's time; None where there was none.
        points: verdicts over the report's time, ascending.
        begin_ms: where the plots begin, event time.
        end_ms: where they end.
        reach: whom the update reached.
        signatures: crashes with the update on disk, by signature.
        recovery: devices silent, looping and recovered over the report's time, ascending.
        recovery_parts: the last of it by ring and tenant, tenants by name where reports have told it.
        pages: what was sent to pagers.
        trail: None where the audit trail was not asked for.
        policy: the policy that decided, where whoever writes the report has it.
        key_ids: of the keys that were believed.
        cut: parts that hold more than is shown, in words.
    """

    lane: str
    rollout: Rollout
    decisions: list[Decision]
    reasons: list[Reason]
    latest: Verdict | None
    points: list[Point]
    begin_ms: int
    end_ms: int
    reach: list[Reach]
    signatures: list[SignatureRow]
    recovery: list[RecoveryPoint]
    recovery_parts: list[RecoveryPart]
    pages: list[PageRow]
    trail: Trail | None
    policy: Policy | None
    key_ids: list[str]
    cut: list[str] = field(default_factory=list)

    @cached_property
    def switches(self) -> list[Switch]:
        """What the believed events say, in order."""
        return believed(self.decisions)

    @cached_property
    def last(self) -> Switch | None:
        """The last believed event."""
        return self.switches[-1] if self.switches else None

    def first(self, decision: DecisionWord) -> Switch | None:
        """Return the first believed event of the whole that decided so and binds, or that would have in a dry run."""
        found = [one for one in self.switches if one.decision is decision]
        return next((one for one in found if not one.dry_run), found[0] if found else None)

    @cached_property
    def deciding(self) -> Switch | None:
        """The event whose evidence the report shows: the detector's kill, else its hold, else its last word."""
        told = [one for one in self.switches if one.evidence is not None]
        for word in (DecisionWord.KILL, DecisionWord.HOLD):
            for one in told:
                if one.decision is word:
                    return one
        return told[-1] if told else None

    @cached_property
    def evidence(self) -> Evidence | None:
        """The numbers behind the deciding event; the last verdict's, which nobody signed, where there is none."""
        if self.deciding is not None:
            return self.deciding.evidence
        return self.latest.evidence if self.latest is not None else None

    @cached_property
    def everybody(self) -> Reach:
        """Whom the update reached in all."""
        none = Reach(dimension="all", name="", told=0, crashed=0, crashes=0, boot_loops=0)
        return next((one for one in self.reach if one.dimension == "all"), none)

    @cached_property
    def first_crash_ms(self) -> int | None:
        """Event time of the first crash of an exposed device, by the last verdict or the deciding event."""
        told = [one.evidence for one in (self.latest, self.deciding) if one is not None and one.evidence is not None]
        found = [one.first_crash_ms for one in told if one.first_crash_ms]
        return min(found) if found else None

    @cached_property
    def silent(self) -> int | None:
        """Exposed devices without a word for a quarter of an hour and without a crash, at the end; None: not known."""
        known = [one for one in self.points if one.heard_share is not None]
        return round(known[-1].exposed * (1 - (known[-1].heard_share or 0.0))) if known else None

    @cached_property
    def exposed(self) -> int:
        """Devices exposed at the end of the report's time."""
        return self.points[-1].exposed if self.points else 0
