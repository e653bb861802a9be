"""Log records to rows: one decoder for each topic the store keeps, pure but for the block it fills.

Called by the sink for every record. Invariants: nothing that comes in raises; what cannot be used becomes a dead letter
with its reason, and the good reports of the same batch are kept. A check-in must stay below a microsecond, since the
sink shares the interpreter with the pipeline.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ingest.deadletter import DeadReason, letter_of
from ingest.events import Frame
from ingest.log.interface import Record, TopicPartition
from ingest.signature import bugcheck_facts, normalise_bugcheck, signature_of
from ingest.store import wire
from ingest.store.activity import decode_activity
from ingest.store.rows import Block

BAD_REPORTS_NAMED_MAX: Final = 8
SIGNATURES_CACHED_MAX: Final = 10_000
# The key of an alert; other records of its topic have other keys.
ALERT_PREFIX: Final = b"a-"
# What msgspec, base64, numpy and the signature raise on what they cannot use: deep nesting is a RecursionError, a
# number beyond 64 bits an OverflowError, a column without words a ZeroDivisionError.
UNUSABLE: Final = (msgspec.MsgspecError, ValueError, ArithmeticError, LookupError, RecursionError, binascii.Error)

# A record, where it lay, and the first offset of its block.
Decode = Callable[[Record, TopicPartition, int, Block], None]

_crash_decoder = msgspec.json.Decoder(wire.CrashBatch | wire.Tick | wire.RolloutNotice)
_raw_decoder = msgspec.json.Decoder(wire.RawBatch | wire.Tick | wire.RolloutNotice)
_crash_report_decoder = msgspec.json.Decoder(wire.Bsod | wire.BootLoop)
_frames_decoder = msgspec.json.Decoder(list[Frame])
_verdict_decoder = msgspec.json.Decoder(wire.Verdict)
_rollout_decoder = msgspec.json.Decoder(wire.Rollout)
_paging_decoder = msgspec.json.Decoder(wire.Paging)
_alert_decoder = msgspec.json.Decoder(wire.Alert)
_envelope_decoder = msgspec.json.Decoder(wire.Envelope)
_event_decoder = msgspec.json.Decoder(wire.CloudEvent)


def _salvage(
    decode: Callable[[msgspec.Raw], Any], record: Record, source: TopicPartition, block: Block
) -> tuple[wire.RawBatch, list[tuple[int, Any]]] | None:
    """Return the good reports of a batch with a bad one in it, with their places; dead-letter the bad ones."""
    assert record.value is not None
    batch = _raw_decoder.decode(record.value)
    if not isinstance(batch, wire.RawBatch):
        return None
    good: list[tuple[int, Any]] = []
    bad: list[str] = []
    for index, raw in enumerate(batch.reports):
        try:
            good.append((index, decode(raw)))
        except UNUSABLE as error:
            bad.append(f"report {index}: {error}")
    if bad:
        named = "; ".join(bad[:BAD_REPORTS_NAMED_MAX])
        detail = f"{len(bad)} of {len(batch.reports)} reports cannot be used: {named}"
        block.dead.append(letter_of("store", source, record, DeadReason.UNREADABLE_REPORT, detail))
    return batch, good


class CrashDecoder:
    """Keeps crashes with their signature; the signatures of crashes that look alike are worked out once."""

    def __init__(self) -> None:
        """Start with an empty cache of signatures."""
        self._signatures: dict[tuple[int, str, bytes, str], tuple[list[str], str, str, str, int]] = {}

    def __call__(self, record: Record, source: TopicPartition, first: int, block: Block) -> None:
        """Keep the crashes of a record of the crash topic."""
        assert record.value is not None
        try:
            batch = _crash_decoder.decode(record.value)
            if type(batch) is not wire.CrashBatch:
                return
            rows = [self._row(at, r, batch, record, source, first) for at, r in enumerate(batch.reports)]
        except UNUSABLE:
            salvaged = _salvage(self._report, record, source, block)
            if salvaged is None:
                return
            rows = [self._row(at, r, salvaged[0], record, source, first) for at, r in salvaged[1]]
        block.reports += len(rows)
        block.add("crashes", rows)

    def _report(self, raw: msgspec.Raw) -> wire.Bsod | wire.BootLoop:
        """Return one report, with frames known to be good."""
        report: wire.Bsod | wire.BootLoop = _crash_report_decoder.decode(raw)
        self._signature(report)
        return report

    def _row(
        self,
        index: int,
        r: wire.Bsod | wire.BootLoop,
        batch: wire.CrashBatch | wire.RawBatch,
        record: Record,
        source: TopicPartition,
        first: int,
    ) -> tuple[Any, ...]:
        frames, module, signature, by_frames, deliberate = self._signature(r)
        kind, boots = ("boot_loop", r.boots) if type(r) is wire.BootLoop else ("bsod", 1)
        versions = [(v.vendor, v.product, v.version, v.activated_at_ms) for v in r.versions]
        return (
            kind, r.device, r.seq, r.at_ms, batch.received_at_ms, r.boot_id, r.boot_at_ms, r.tenant, r.os_build,
            r.form_factor, r.model, r.ring, r.site, boots, r.bugcheck, r.parameters, r.module, frames, module,
            signature, by_frames, deliberate, versions, batch.gateway, source.partition, record.offset, index, first,
        )  # fmt: skip

    def _signature(self, r: wire.Bsod | wire.BootLoop) -> tuple[list[str], str, str, str, int]:
        """Return frames as text, signature at three grains, and whether a person asked for the crash."""
        number = bugcheck_facts(normalise_bugcheck(r.bugcheck)).subcode
        subcode = r.parameters[number - 1] if number is not None and len(r.parameters) >= number else ""
        key = (r.bugcheck, r.module, bytes(r.frames), subcode)
        found = self._signatures.get(key)
        if found is None:
            frames = _frames_decoder.decode(r.frames)
            signature = signature_of(r.bugcheck, r.parameters, frames, r.module)
            found = (
                [f"{frame.module}+{frame.offset:#x}" for frame in frames],
                signature.module,
                signature.module_bugcheck,
                signature.frames,
                int(signature.deliberate),
            )
            if len(self._signatures) >= SIGNATURES_CACHED_MAX:
                self._signatures.clear()
            self._signatures[key] = found
        return found


def decode_verdict(record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Keep a verdict with the numbers that boards plot."""
    del first
    assert record.value is not None
    v = _verdict_decoder.decode(record.value)
    e = v.evidence
    methods = [(m.name, m.log10_evidence, m.weight, m.events_exposed, m.events_control) for m in e.methods]
    row = (
        v.rollout, v.vendor, v.product, v.version, v.at_ms, v.verdict, v.decision, v.reason, v.sentence,
        e.log10_evidence, e.log10_evidence_max, e.log10_needed_to_hold, e.log10_needed_to_kill, e.tolerated_ratio,
        e.crashes_exposed, e.crashes_control, e.exposed, e.at_risk_exposed, e.at_risk_control, e.rate_ratio,
        e.rate_ratio_low, e.rate_ratio_high, e.tenants, methods, v.policy, int(v.dry_run), record.value.decode(),
        source.partition, record.offset, record.appended_at_ms,
    )  # fmt: skip
    block.add("verdicts", [row])
    if v.recovery is not None:
        r = v.recovery
        parts = [(one.ring, one.tenant, one.silent, one.looping, one.recovered) for one in r.rows]
        back = (
            v.rollout, v.at_ms // 60_000 * 60, v.vendor, v.product, v.version, r.silent, r.looping, r.recovered, parts,
            source.partition, record.offset, record.appended_at_ms,
        )  # fmt: skip
        block.add("recoveries", [back])


def decode_alert(record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Keep an alert; the watch's status and state lie under other keys and are nothing for the store."""
    del first
    assert record.value is not None
    if record.key is None or not record.key.startswith(ALERT_PREFIX):
        return
    a = _alert_decoder.decode(record.value)
    places = [msgspec.structs.astuple(place) for place in a.places]
    row = (
        a.alert, a.at_ms, a.state, a.pattern, a.signatures, a.joined, places, a.opened_ms, a.last_ms, a.crashes,
        a.devices_most, a.tenants_most, a.expected, a.log10_evidence, a.log10_needed, a.tests, a.times, a.ended,
        a.sentence, record.value.decode(), source.partition, record.offset, record.appended_at_ms,
    )  # fmt: skip
    block.add("alerts", [row])


def decode_killswitch(record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Keep a kill-switch event and its signed envelope; whether the signature holds is for the reader to check."""
    del first
    assert record.value is not None
    envelope = _envelope_decoder.decode(record.value)
    s = _event_decoder.decode(base64.b64decode(envelope.payload, validate=True)).data
    log10_evidence = None if s.evidence is None else s.evidence.log10_evidence
    row = (
        s.rollout, s.number, s.vendor, s.product, s.version, s.state, s.previous_state, s.decision, s.cause, s.reason,
        s.sentence, s.name, s.watermark_ms, s.decided_ms, s.lane, int(s.dry_run), s.command_id, s.policy,
        log10_evidence, [signature.keyid for signature in envelope.signatures],
        record.value.decode(), source.partition, record.offset, record.appended_at_ms,
    )  # fmt: skip
    block.add("killswitch", [row])


def decode_rollout(record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Keep a rollout as declared or discovered; a later record is a row of its own."""
    del first
    assert record.value is not None
    r = _rollout_decoder.decode(record.value)
    rings = [(ring.name, ring.starts_at_ms, ring.over_seconds, ring.share) for ring in r.rings]
    row = (
        r.rollout, r.vendor, r.product, r.update_kind, r.version, r.origin_ms, r.bound, rings, r.pushed_devices,
        r.declared_by, r.discovered_by, int(r.closed), record.value.decode(), source.partition, record.offset,
        record.appended_at_ms,
    )  # fmt: skip
    block.add("rollouts", [row])


def decode_paging(record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Keep an attempt to page: what was sent over which route, when, and the answer."""
    del first
    assert record.value is not None
    p = _paging_decoder.decode(record.value)
    row = (
        p.rollout, p.owner, p.route, p.channel, p.key, p.step, p.level, p.sequence, p.attempt, p.at_ms, p.seconds,
        p.answered, p.status, p.answer, p.headline, record.value.decode(), source.partition, record.offset,
        record.appended_at_ms,
    )  # fmt: skip
    block.add("pagings", [row])


def decode_into(decode: Decode, record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Decode one record into the block; a record that cannot be used becomes a dead letter, a tombstone nothing."""
    if record.value is None:
        return
    try:
        decode(record, source, first, block)
    except UNUSABLE as error:
        block.dead.append(letter_of("store", source, record, DeadReason.UNREADABLE, str(error)))


def decoders() -> dict[str, Decode]:
    """Return the decoder of each topic that the store keeps, by the topic's word; fresh ones, for one sink."""
    return {
        "crashes": CrashDecoder(),
        "activity": decode_activity,
        "rollouts": decode_rollout,
        "verdicts": decode_verdict,
        "alerts": decode_alert,
        "pagings": decode_paging,
        "killswitch": decode_killswitch,
    }
