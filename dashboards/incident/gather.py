"""Ask for everything that a report needs, within bounds.

Between `source` and whatever tells the story. Invariants: an unknown rollout is an error; whatever has more than is
shown says so; the time that is looked at is chosen by the data alone.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from dashboards.incident.decisions import Decision, believed, judged
from dashboards.incident.material import Material, Trail
from dashboards.incident.rows import (
    EnvelopeRow,
    PageRow,
    Point,
    Reach,
    Reason,
    Record,
    RecoveryPart,
    RecoveryPoint,
    SignatureRow,
)
from dashboards.incident.source import IncidentError, Source
from detectors.policy import Policies, Policy
from detectors.verdict import Verdict, verdict_decoder
from ingest.events import UNREADABLE_ERRORS
from ingest.rollouts import Rollout, rollout_decoder
from ingest.tenancy import tenant_hash
from signals.events import AuditEntry, Switch, audit_decoder
from signals.killswitch.audit_check import verify_chain
from signals.killswitch.signing import PublicKeys

DECISIONS_MAX: Final = 500
PAGES_MAX: Final = 500
NAMES_MAX: Final = 40
SIGNATURES_MAX: Final = 20
POINTS_MAX: Final = 600
ENTRIES_MAX: Final = 500
PARTS_MAX: Final = 40
TRAIL_MAX: Final = 200_000
_HOUR_MS: Final = 3_600_000
# The plots show at most a day before the first stop, and the hour behind the last decision.
_BEFORE_MS: Final = 24 * _HOUR_MS
_AFTER_MS: Final = _HOUR_MS
_Row = TypeVar("_Row")


def gathered(source: Source, rollout: str, lane: str, keys: PublicKeys, policies: Sequence[Policies] = ()) -> Material:
    """Return everything about one rollout.

    Args:
        source: who is asked.
        rollout: its id.
        lane: of the installation.
        keys: that decisions have to be signed with.
        policies: among which the policy that decided is looked for by its digest.

    Raises:
        IncidentError: the rollout is not known, or an answer can't be read.
    """
    declared = _rollout(source, rollout)
    cut: list[str] = []
    update = {"vendor": declared.vendor, "product": declared.product, "version": declared.version}
    rows = source.rows("decisions", EnvelopeRow, rollout=rollout, limit=DECISIONS_MAX + 1)
    decisions = judged(_bounded(rows, DECISIONS_MAX, "decisions", cut), rollout, lane, keys)
    reasons = source.rows("reasons", Reason, rollout=rollout)
    begin_ms, end_ms = _span(declared, believed(decisions), reasons)
    latest = _latest(source, rollout, end_ms)
    pages = source.rows("pages", PageRow, rollout=rollout, limit=PAGES_MAX + 1)
    found = source.rows("signatures", SignatureRow, **update, from_ms=declared.origin_ms, limit=SIGNATURES_MAX + 1)
    parts = source.rows("recovery_parts", RecoveryPart, rollout=rollout, to_ms=end_ms, limit=PARTS_MAX + 1)
    reach = source.rows("reach", Reach, **update, limit=NAMES_MAX + 1)
    return Material(
        lane=lane,
        rollout=declared,
        decisions=decisions,
        reasons=reasons,
        latest=latest,
        points=_points(source, rollout, begin_ms, end_ms),
        begin_ms=begin_ms,
        end_ms=end_ms,
        reach=_reach(reach, cut),
        signatures=_bounded(found, SIGNATURES_MAX, "signatures", cut),
        recovery=_recovery(source, rollout, begin_ms, end_ms),
        recovery_parts=_named(_bounded(parts, PARTS_MAX, "rings and tenants with devices that come back", cut), reach),
        pages=_bounded(pages, PAGES_MAX, "deliveries to pagers", cut),
        trail=_trail(source, rollout, decisions, cut),
        policy=_policy(policies, decisions, latest),
        key_ids=keys.ids,
        cut=cut,
    )


def _rollout(source: Source, rollout: str) -> Rollout:
    found = source.rows("rollout", Record, rollout=rollout)
    if not found:
        raise IncidentError(
            f"no rollout {rollout[:64]!r} is known to this store: check the id (`cordon query rollouts_latest` lists "
            "them) and the lane (--lane)"
        )
    try:
        return rollout_decoder.decode(found[0].json)
    except UNREADABLE_ERRORS as error:
        raise IncidentError(f"the stored declaration of {rollout} can't be read: {error}") from error


def _latest(source: Source, rollout: str, end_ms: int) -> Verdict | None:
    found = source.rows("verdict_latest", Record, rollout=rollout, to_ms=end_ms)
    try:
        return verdict_decoder.decode(found[0].json) if found else None
    except UNREADABLE_ERRORS as error:
        raise IncidentError(f"the last stored verdict on {rollout} can't be read: {error}") from error


def _span(rollout: Rollout, switches: list[Switch], reasons: list[Reason]) -> tuple[int, int]:
    """Return from when to when the plots go, event time: from the beginning, and around the stops if they are far."""
    stops = [one.watermark_ms for one in switches if one.watermark_ms and one.decision in ("hold", "kill")]
    moves = [one.watermark_ms for one in switches if one.watermark_ms]
    begin = rollout.origin_ms
    if stops:
        begin = max(begin, min(stops) - _BEFORE_MS)
    end = max([one.last_ms for one in reasons], default=begin)
    if stops:
        end = min(end, max(moves) + _AFTER_MS)
    return begin, max(end, begin + 60_000)


def _points(source: Source, rollout: str, begin_ms: int, end_ms: int) -> list[Point]:
    step = _step_ms(begin_ms, end_ms)
    found = source.rows("verdict_points", Point, rollout=rollout, from_ms=begin_ms, to_ms=end_ms, step_ms=step)
    return sorted(found, key=lambda point: point.at_ms)


def _step_ms(begin_ms: int, end_ms: int) -> int:
    return max(1, -(-(end_ms - begin_ms) // POINTS_MAX))


def _recovery(source: Source, rollout: str, begin_ms: int, end_ms: int) -> list[RecoveryPoint]:
    step = _step_ms(begin_ms, end_ms)
    found = source.rows("recovery_points", RecoveryPoint, rollout=rollout, from_ms=begin_ms, to_ms=end_ms, step_ms=step)
    return sorted(found, key=lambda point: point.at_ms)


def _named(parts: list[RecoveryPart], reach: list[Reach]) -> list[RecoveryPart]:
    """Put the names of tenants in the place of their hashes, as far as reports have told them."""
    names = {f"#{tenant_hash(one.name):x}": one.name for one in reach if one.dimension == "tenant"}
    return [msgspec.structs.replace(part, tenant=names.get(part.tenant, part.tenant)) for part in parts]


def _reach(rows: list[Reach], cut: list[str]) -> list[Reach]:
    kept: list[Reach] = []
    for dimension, what in (("all", ""), ("ring", "rings"), ("os_build", "OS builds"), ("tenant", "tenants")):
        kept += _bounded([one for one in rows if one.dimension == dimension], NAMES_MAX, what, cut)
    return kept


def _bounded(rows: list[_Row], most: int, what: str, cut: list[str]) -> list[_Row]:
    if len(rows) > most:
        cut.append(f"There are more {what} than the {most:,} that are shown here.")
    return rows[:most]


def _trail(source: Source, rollout: str, decisions: list[Decision], cut: list[str]) -> Trail | None:
    data = source.trail(rollout, TRAIL_MAX + 1)
    if data is None:
        return None
    whole = len(data) <= TRAIL_MAX
    if not whole:
        cut.append(f"The audit trail is longer than the {TRAIL_MAX:,} entries that were read: `cordon audit verify`.")
        data = data[:TRAIL_MAX]
    report = verify_chain(data)
    faults = [f"entry {one.number}: {one.sentence}" for one in report.findings]
    entries: dict[int, AuditEntry] = {}
    for one in data:
        try:
            entry = audit_decoder.decode(one)
        except UNREADABLE_ERRORS:
            continue  # verify_chain has said so
        if entry.rollout == rollout:
            entries.setdefault(entry.number, entry)
    entered = {entry.event_id: entry.event_digest for entry in entries.values() if entry.event_id}
    for decision in decisions:
        name = f"{rollout}/{decision.number}"
        if decision.believed and entered.get(name) != decision.digest and (whole or name in entered):
            faults.append(f"event {name} has no entry that names its content")
    return Trail(
        _bounded(list(entries.values()), ENTRIES_MAX, "entries of the audit trail", cut), faults, report.entries
    )


def _policy(policies: Sequence[Policies], decisions: list[Decision], latest: Verdict | None) -> Policy | None:
    """Return the policy that decided if it is among these, which its digest says; of several, that of the last."""
    named = [one.policy for one in believed(decisions) if one.policy] or ([latest.policy] if latest else [])
    known = {one.digest: one for some in policies for one in some.all()}
    return known.get(named[-1]) if named else None
