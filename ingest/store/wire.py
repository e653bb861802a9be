"""The lean shapes in which the sink reads the log: only the fields it stores, decoded at the price of those.

`ingest` imports neither detectors nor signals: verdicts and kill-switch events are decoded from their JSON by shapes of
its own. The invariant: whatever decodes fits the columns of the migrations (ranges are checked here, not by an
insert that would then fail for ever).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from ingest.events import TIME_MAX_MS, TIME_MIN_MS, U32

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=TIME_MIN_MS, le=TIME_MAX_MS)]
# Zero stands for "none" in some fields.
TimeOrZero = Annotated[int, Meta(ge=0, le=TIME_MAX_MS)]


class Tick(msgspec.Struct, tag_field="kind", tag="tick", gc=False):
    """A gateway's clock: nothing to store."""


class RolloutNotice(msgspec.Struct, tag_field="kind", tag="rollout", gc=False):
    """A rollout now watched: the topic of rollouts has it whole."""


class _Kept(msgspec.Struct, tag_field="kind", kw_only=True, gc=False):
    """What both kept kinds of device report carry."""

    device: str
    seq: Count
    at_ms: Time
    boot_id: str
    boot_at_ms: Time
    os_build: str
    form_factor: str
    model: str = ""
    ring: str = ""
    site: str = ""
    tenant: str = ""


class DiskVersion(msgspec.Struct, kw_only=True, gc=False):
    """An update as read from disk."""

    vendor: str
    product: str
    version: str
    activated_at_ms: Time | None = None


class _Crash(_Kept, kw_only=True, gc=False):
    """A crash; frames stay text until it is known that their signature is a new one."""

    bugcheck: U32 = 0
    parameters: list[str] = []
    module: str = ""
    frames: msgspec.Raw = msgspec.Raw(b"[]")
    versions: list[DiskVersion] = []


class Bsod(_Crash, tag="bsod", kw_only=True, gc=False):
    """The machine stopped once."""


class BootLoop(_Crash, tag="boot_loop", kw_only=True, gc=False):
    """The machine stopped at every boot."""

    boots: U32 = 2


class CrashBatch(msgspec.Struct, tag_field="kind", tag="batch"):
    """A batch of the crash topic."""

    gateway: str
    received_at_ms: Time
    reports: list[Bsod | BootLoop]


class RawBatch(msgspec.Struct, tag_field="kind", tag="batch"):
    """A batch whose reports are looked at one by one, because one of them is bad."""

    gateway: str
    received_at_ms: Time
    reports: list[msgspec.Raw]


class Method(msgspec.Struct, kw_only=True):
    """One detection method's part in a verdict."""

    name: str
    log10_evidence: float
    weight: float
    events_exposed: Count = 0
    events_control: Count = 0


class Evidence(msgspec.Struct, kw_only=True):
    """The numbers behind a verdict."""

    log10_evidence: float
    log10_evidence_max: float
    log10_needed_to_hold: float
    log10_needed_to_kill: float
    tolerated_ratio: float
    methods: list[Method] = []
    crashes_exposed: Count = 0
    crashes_control: Count = 0
    exposed: Count = 0
    at_risk_exposed: Count = 0
    at_risk_control: Count = 0
    rate_ratio: float | None = None
    rate_ratio_low: float | None = None
    rate_ratio_high: float | None = None
    tenants: Count = 0


class RecoveryRow(msgspec.Struct, kw_only=True):
    """Devices of one ring and tenant, and how they come back."""

    ring: str
    tenant: str = ""
    silent: Count = 0
    looping: Count = 0
    recovered: Count = 0


class Recovery(msgspec.Struct, kw_only=True):
    """How devices of a rollout come back."""

    silent: Count
    looping: Count
    recovered: Count
    rows: list[RecoveryRow] = []


class Verdict(msgspec.Struct, kw_only=True):
    """A record of the verdict topic."""

    rollout: str
    vendor: str
    product: str
    version: str
    at_ms: TimeOrZero
    verdict: str
    decision: str
    reason: str
    sentence: str
    evidence: Evidence
    policy: str
    dry_run: bool = False
    recovery: Recovery | None = None


class AlertPlace(msgspec.Struct, array_like=True):
    """Where an alert's pattern was found."""

    os_build: str
    model: str
    crashes: Count
    devices: Count
    expected: float
    log10_evidence: float
    log10_needed: float


class Alert(msgspec.Struct, kw_only=True, tag_field="kind", tag="alert"):
    """A record of the alerts topic that the store keeps; the watch's status and state are none."""

    alert: str
    at_ms: TimeOrZero
    state: str
    pattern: str
    signatures: list[str] = []
    joined: str = ""
    places: list[AlertPlace] = []
    opened_ms: TimeOrZero
    last_ms: TimeOrZero
    crashes: Count
    devices_most: Count
    tenants_most: Count
    expected: float
    log10_evidence: float
    log10_needed: float
    tests: Count
    times: Count = 1
    ended: str = ""
    sentence: str


class SwitchEvidence(msgspec.Struct, kw_only=True):
    """Of the evidence in a kill-switch event, the number that its history shows."""

    log10_evidence: float


class Switch(msgspec.Struct, kw_only=True):
    """The data of a kill-switch event."""

    rollout: str
    number: Count
    lane: str
    vendor: str
    product: str
    version: str
    state: str
    previous_state: str
    decision: str
    cause: str
    reason: str
    sentence: str
    watermark_ms: TimeOrZero
    decided_ms: TimeOrZero
    dry_run: bool = False
    name: str = ""
    command_id: str = ""
    policy: str = ""
    evidence: SwitchEvidence | None = None


class CloudEvent(msgspec.Struct, kw_only=True):
    """The payload of an envelope."""

    data: Switch


class EnvelopeSignature(msgspec.Struct, kw_only=True):
    """Which key signed; the store keeps signatures and judges none."""

    keyid: str


class Envelope(msgspec.Struct, kw_only=True):
    """A record of the kill-switch topic: a DSSE envelope."""

    payload: str
    signatures: list[EnvelopeSignature] = []


class Ring(msgspec.Struct, kw_only=True):
    """A ring of a rollout, and from when it is pushed to."""

    name: str
    starts_at_ms: Time | None = None
    over_seconds: float = 0.0
    share: float = 1.0


class Rollout(msgspec.Struct, kw_only=True):
    """A record of the rollout topic."""

    rollout: str
    vendor: str
    product: str
    update_kind: str
    version: str
    origin_ms: TimeOrZero
    bound: str
    rings: list[Ring] = []
    pushed_devices: Count = 0
    declared_by: str = ""
    discovered_by: str = ""
    closed: bool = False


class Paging(msgspec.Struct, kw_only=True):
    """A record of the pagings topic: one attempt to page."""

    rollout: str
    owner: str
    route: str
    channel: str
    key: str
    step: str
    level: str
    sequence: Count
    attempt: Count
    at_ms: TimeOrZero
    seconds: float
    answered: str
    status: Count = 0
    answer: str = ""
    headline: str = ""
