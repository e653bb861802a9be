"""The wire type of cohort windows: what grouping says of one partition from one tick to the next.

Grouping advances a partition from tick to tick. Each step is one `Step` record with a `CohortWindow` for every watched
rollout in which something changed; a step without windows still says that the partition is seen. Counts at risk are
absolute (a later window replaces them), crashes are those admitted in the step. Because steps are cut by ticks in the
log, a partition that is read again after a failure says the same steps again: a reader that has passed `watermark_ms`
ignores them, and a step whose `since_ms` is not the watermark the reader holds is a gap.

A cell is written as text, `family|form factor|ring|boot band|recency` (`22631|laptop|early|day|recent`), so that
partitions need not share numbers. A sixth field names the rival rollouts that its devices are exposed to, in order of
their names (`22631|laptop|early|day|recent|r-ab12+r-cd34`); a device that is exposed to none is in a cell without it.
A partition splits cells only by rollouts that some device of its own is on as well.
Rows are arrays on the wire, to keep a window small; a field that a release adds is appended with a default, which older
readers ignore and older records lack.
"""

import enum

import msgspec

from ingest.events import SCHEMA_WRITTEN, RecordSchema


class AtRisk(msgspec.Struct, array_like=True, frozen=True):
    """How many devices of one cell and tenant group are at risk now, without a crash since the rollout's origin.

    Attributes:
        cell: the cell's text.
        group: tenant group, 0 to 31.
        exposed: devices known to be offered or on the rollout's version, or declared as pushed by list.
        control: devices of the cell on another version of the product.
    """

    cell: str
    group: int
    exposed: int
    control: int


class FirstCrash(msgspec.Struct, array_like=True, frozen=True):
    """A device's first crash since the rollout's origin, in either arm.

    Attributes:
        at_ms: event time, which chooses the second whose counts it is scored against.
        cell: the cell's text.
        group: tenant group, 0 to 31.
        exposed: 1 when the device was exposed at that time, else 0.
        tenant: hashed tenant, so that distinct tenants can be counted beyond groups.
        signature: module and bugcheck, version-free.
        scored: False when its site had a crash within five minutes before, or its gateway had fallen silent for so long
            that the watermark had passed it: counted, but no evidence of its own.
        kind: `bsod` or `boot_loop`.
        build: the device's exact OS build before the crash (`22631.3880`), as margins name it: `other` where its
            product does not keep it apart. Empty in a record of a release before this field.
        model: the device's model, likewise.
        frames: at most three places on the stack, innermost first (`csagent.sys+0xe14ed`): for people, never evidence.
            Empty where the report has none, and in a record of a release before this field.
    """

    at_ms: int
    cell: str
    group: int
    exposed: int
    tenant: int
    signature: str
    scored: bool
    kind: str
    build: str = ""
    model: str = ""
    frames: list[str] = []


class MarginRisk(msgspec.Struct, array_like=True, frozen=True):
    """How many devices of one margin and tenant group are at risk, over all cells of the rollout.

    Said with every full window, of the same devices as its `AtRisk` rows: the margins of one field (all builds, or all
    models) add up to them. Until the next full window, a minute later at most, they stay as they were said: devices
    exposed since then still count as control here, and whoever needs an upper bound of the exposed share must add them.

    Attributes:
        margin: `build=22631.3880` or `model=Latitude 5440`; `build=other` and `model=other` for those beyond the 64 of
            each that a product keeps apart in this partition, and for those that are unknown.
        group: tenant group, 0 to 31.
        exposed: as in `AtRisk`.
        control: as in `AtRisk`.
    """

    margin: str
    group: int
    exposed: int
    control: int


class HeardMinute(msgspec.Struct, array_like=True, frozen=True):
    """Devices of a cell last heard in one minute, and how many of them are overdue by now.

    Said twice for each minute: at its end (silent counts 0: the stratum's sizes), and when the overdue time has passed
    (how many were not heard since). Sizes are by arm as it stood at the end of that minute.

    Attributes:
        minute_ms: when the minute began: at whatever second the rollout's minutes begin.
        cell: the cell's text.
        group: tenant group, 0 to 31.
        exposed: exposed devices last heard in it.
        control: devices on another version last heard in it.
        silent_exposed: how many of the exposed are overdue.
        silent_control: how many of the control are overdue.
    """

    minute_ms: int
    cell: str
    group: int
    exposed: int
    control: int
    silent_exposed: int
    silent_control: int


class Recovering(msgspec.Struct, array_like=True, frozen=True):
    """Devices of one ring and tenant that a rollout put out of service, and how they come back.

    Attributes:
        ring: the devices' eligibility, by its name.
        tenant: hashed tenant; 0 for the smaller tenants of the ring together.
        silent: not heard from for the overdue time, though they should have been.
        looping: crashed since they were exposed, and not quiet for the overdue time since.
        recovered: crashed since they were exposed, heard from since, and quiet.
    """

    ring: str
    tenant: int
    silent: int
    looping: int
    recovered: int


class CohortWindow(msgspec.Struct, kw_only=True):
    """What one partition says of one rollout in one step.

    Attributes:
        origin_ms: the origin both arms' first crashes are counted from.
        full: `at_risk` names every cell, `margins` every margin; others are empty. Otherwise only cells that changed
            are named. Which rollouts are rivals, and so how cells are split, changes with full windows only.
        at_risk: devices at risk by cell and tenant group.
        crashes: first crashes admitted in this step, in order of arrival.
        heard: minute strata for silence, when the step passes a minute.
        crash_total: first crashes admitted since the origin in both arms, this step included: a check on the chain.
        exposed_total: devices exposed now, at risk or not.
        pending: crashes of this partition, of whatever product, read but not yet evidence: the activity watermark is
            behind them.
        owners: each tenant group with devices in this partition, of whatever product, and the hash of its tenant, or 0
            where it is more than one; in full windows, and in the first after a tenant was new. Tenants that ever had a
            device count.
        margins: devices at risk by exact OS build and by model, absolute, in full windows only: every margin, others
            are empty. A window is full at each minute of the rollout (`ingest.minutes`), when watching begins, when its
            rivals change, and after a restart.
        recovery: devices of the rollout that are silent, looping or recovered by the window's minute, absolute, in full
            windows only; those without a row have crashed not at all and were heard from.
    """

    rollout: str
    vendor: str
    product: str
    version: str
    origin_ms: int
    full: bool = False
    at_risk: list[AtRisk] = []
    crashes: list[FirstCrash] = []
    heard: list[HeardMinute] = []
    crash_total: int = 0
    exposed_total: int = 0
    pending: int = 0
    margins: list[MarginRisk] = []
    owners: list[tuple[int, int]] = []
    recovery: list[Recovering] = []


class Step(msgspec.Struct, kw_only=True, tag_field="kind", tag="step"):
    """One record of `cordon.cohorts.v1`: one partition's step, said to every partition of the topic.

    Attributes:
        partition: the device partition that speaks.
        generation: the grouping owner's fence epoch; a lower one than seen is a stale owner's word and is ignored.
        offsets: the next input offset by topic word (`activity`, `crashes`) after this step.
        since_ms: the watermark of this partition's previous step; 0 in its first.
        watermark_ms: everything received before this time is counted.
        crash_watermark_ms: how far the crash topic was read; far ahead of `watermark_ms` means activity is late.
        pending: crashes read that are not yet evidence.
        windows: one for every watched rollout in which something changed.
    """

    schema: RecordSchema = SCHEMA_WRITTEN
    partition: int
    generation: int
    offsets: dict[str, int]
    since_ms: int
    watermark_ms: int
    crash_watermark_ms: int
    pending: int = 0
    windows: list[CohortWindow] = []


class BootBand(enum.StrEnum):
    """Time since boot, in bands: an update's reboot brings out old faults."""

    FRESH = "fresh"  # under ten minutes
    DAY = "day"  # under 24 hours
    OLD = "old"


class Recency(enum.StrEnum):
    """How lately a device was heard from; those beyond the last class are not at risk."""

    RECENT = "recent"  # within 15 minutes
    STALE = "stale"  # within 26 hours


step_decoder = msgspec.json.Decoder(Step)
