"""Records of a device topic to columns: the one place where grouping touches single reports in Python.

Only the fields that grouping needs are decoded; texts become numbers in the partition's dictionaries. What is decoded
here was checked by a gateway, but a record is still trusted for nothing: one that does not decode is handed back as
`None`, to be dead-lettered, and one whose numbers are impossible raises `ValueError`.

A report's event time is never later than its gateway's clock when it came: a device whose clock runs ahead is heard
now, not tomorrow, so it can't make itself deaf to its own later reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.activity import CHECK_IN, INSTALLED, OFFERED, ActivityBatch, ActivityRecord, Texts, activity_decoder
from ingest.events import (
    SCHEMA_WRITTEN,
    TIME_MAX_MS,
    TIME_MIN_MS,
    UNREADABLE_ERRORS,
    RecordSchema,
    RolloutNotice,
    Tick,
)
from ingest.grouping.words import Words

UPDATES_MAX = 32_768
INVENTORIES_MAX = 65_536


class _Lean(msgspec.Struct, tag_field="kind", kw_only=True, gc=False):
    device: str
    seq: int
    at_ms: int
    boot_at_ms: int
    os_build: str
    form_factor: str
    model: str = ""
    ring: str = ""
    tenant: str = ""


class DiskVersion(msgspec.Struct, kw_only=True, gc=False):
    """An update named by a crash report."""

    vendor: str
    product: str
    version: str
    activated_at_ms: int | None = None


class Frame(msgspec.Struct, kw_only=True, gc=False):
    """A stack frame of a crash report."""

    module: str
    offset: int


class Bsod(_Lean, tag="bsod", kw_only=True, gc=False):
    """A crash report, as grouping reads it."""

    site: str = ""
    bugcheck: int = 0
    parameters: list[str] = []
    module: str = ""
    frames: list[Frame] = []
    versions: list[DiskVersion] = []


class BootLoop(Bsod, tag="boot_loop", kw_only=True, gc=False):
    """A boot loop's report, as grouping reads it."""


class CrashBatch(msgspec.Struct, tag_field="kind", tag="batch", kw_only=True):
    """A batch of the crash topic, as grouping reads it."""

    schema: RecordSchema = SCHEMA_WRITTEN
    reports: list[Bsod | BootLoop]
    received_at_ms: int


_crashes: msgspec.json.Decoder[CrashBatch | Tick | RolloutNotice] = msgspec.json.Decoder(
    CrashBatch | Tick | RolloutNotice
)


def decode_activity(value: bytes) -> ActivityRecord | None:
    """Decode a record of the activity topic; None where it cannot be."""
    try:
        return activity_decoder.decode(value)
    except UNREADABLE_ERRORS:
        return None


def decode_crashes(value: bytes) -> CrashBatch | Tick | RolloutNotice | None:
    """Decode a record of the crash topic; None where it cannot be."""
    try:
        return _crashes.decode(value)
    except UNREADABLE_ERRORS:
        return None


class Dictionaries:
    """All dictionaries of one partition, and what is derived from them.

    `product_of[u]` is the product number of update `u`; `family_of[b]` the OS build family of build `b`.
    """

    def __init__(self) -> None:
        """Make empty dictionaries."""
        self.os_builds = Words(4096)
        self.models = Words(65_536)
        self.tenants = Words(65_536)
        self.rings = Words(64)
        self.forms = Words(8)
        self.updates = Words(UPDATES_MAX)
        self.products = Words(UPDATES_MAX)
        self.families = Words(32)
        self.product_of = np.zeros(UPDATES_MAX, np.uint16)
        self.family_of = np.zeros(4096, np.uint8)
        self._update_keys: dict[tuple[str, str, str], int] = {}
        self._inventories: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}

    def named(self) -> dict[str, Words]:
        """Return the dictionaries that a snapshot keeps, by name; the rest is derived."""
        names = ("os_builds", "models", "tenants", "rings", "forms", "updates")
        return {name: getattr(self, name) for name in names}

    def derive(self) -> None:
        """Make what follows from loaded dictionaries."""
        for number, text in enumerate(self.os_builds.texts):
            self.family_of[number] = self.families[text.partition(".")[0]]
        for number, text in enumerate(self.updates.texts):
            size, _, names = text.partition(":")
            if names:
                self.product_of[number] = self.products[names[: int(size)]]

    def update_number(self, vendor: str, product: str, version: str) -> int:
        """Return the number of an update; 0 where the dictionary is full."""
        key = (vendor, product, version)
        known = self._update_keys.get(key)
        if known is None:
            known = self._number_update(f"{vendor}/{product}", version)
            if len(self._update_keys) < UPDATES_MAX:
                self._update_keys[key] = known
        return known

    def inventory(self, versions: dict[str, str]) -> tuple[int, ...]:
        """Return a set of versions as numbers of updates; those that the full dictionary can't name are left out."""
        key = tuple(versions.items())
        known = self._inventories.get(key)
        if known is None:
            numbers = [self._number_update(product, version) for product, version in key]
            known = tuple(number for number in numbers if number)
            if len(self._inventories) >= INVENTORIES_MAX:
                self._inventories.clear()
            self._inventories[key] = known
        return known

    def _number_update(self, product_key: str, version: str) -> int:
        # The product's length comes first: no character is safe as a separator, for versions are free text.
        number = self.updates[f"{len(product_key)}:{product_key}{version}"]
        if number:
            self.product_of[number] = self.products[product_key]
        return number

    def build_numbers(self, builds: Sequence[str]) -> npt.NDArray[np.uint16]:
        """Number OS builds, keeping the family of each."""
        known = len(self.os_builds.texts)
        numbers = np.fromiter(self.os_builds.numbers(builds), np.uint16, len(builds))
        for number in range(known, len(self.os_builds.texts)):
            self.family_of[number] = self.families[self.os_builds.texts[number].partition(".")[0]]
        return numbers


@dataclass(slots=True)
class Columns:
    """Reports of one kind of topic as columns of equal length; seconds since the epoch, numbers by dictionary.

    `update` is the update offered or installed (0 elsewhere), `installed` tells which of the two, `inventory` the place
    in `sets` of the check-in's set of versions; place 0 is the empty set.
    """

    key: npt.NDArray[np.uint64]
    seq: npt.NDArray[np.uint64]
    at: npt.NDArray[np.uint32]
    boot_at: npt.NDArray[np.uint32]
    os_build: npt.NDArray[np.uint16]
    form: npt.NDArray[np.uint8]
    model: npt.NDArray[np.uint16]
    ring: npt.NDArray[np.uint8]
    tenant: npt.NDArray[np.uint16]
    update: npt.NDArray[np.uint16]
    installed: npt.NDArray[np.bool_]
    inventory: npt.NDArray[np.uint32]
    sets: list[tuple[int, ...]]

    def __len__(self) -> int:
        """Return the number of reports."""
        return len(self.key)

    def check(self, reports: int) -> None:
        """Check that every column has one entry for each of `reports` reports.

        Raises:
            ValueError: one has not, or a device has the number 0, which marks an empty row.
        """
        for name in _ARRAYS:
            if len(getattr(self, name)) != reports:
                raise ValueError(f"column {name} has {len(getattr(self, name))} entries for {reports} reports")
        if not self.key.all():
            raise ValueError("a pseudonym is all zeros")

    def take(self, where: npt.NDArray[Any]) -> "Columns":
        """Return the columns at the given places."""
        return _columns([getattr(self, name)[where] for name in _ARRAYS], self.sets)


_ARRAYS = tuple(name for name in Columns.__slots__ if name != "sets")


def _columns(arrays: Sequence[npt.NDArray[Any]], sets: list[tuple[int, ...]]) -> Columns:
    return Columns(**dict(zip(_ARRAYS, arrays, strict=True)), sets=sets)


def keys_of(pseudonyms: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return pseudonyms (16 hexadecimal digits each) as numbers; the first digit is the most significant.

    Raises:
        ValueError: one of them is not of that form.
    """
    joined = "".join(pseudonyms)
    if len(joined) != 16 * len(pseudonyms):
        raise ValueError("a pseudonym is not 16 hexadecimal digits long")
    return _keys(joined)


def _keys(joined: str) -> npt.NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex(joined), ">u8").astype(np.uint64)


def notice_keys(notice: RolloutNotice) -> npt.NDArray[np.uint64]:
    """Return the devices that a notice declares as pushed to, as sorted distinct numbers.

    Raises:
        ValueError: a pseudonym is malformed, or a time is out of its range.
    """
    known_time = TIME_MIN_MS <= notice.origin_ms <= TIME_MAX_MS and 0 <= notice.pushed_from_ms <= TIME_MAX_MS
    if not known_time or any(len(name) != 16 for name in notice.pushed):
        raise ValueError(f"the notice of rollout {notice.rollout} has an impossible time or pseudonym")
    return np.unique(keys_of(notice.pushed))


def _numbered(words: Words, texts: Texts, reports: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return a column of texts as numbers of the dictionary, shape (reports,)."""
    table = np.fromiter(words.numbers(texts.words), dtype, len(texts.words))
    return _spread(table, texts, reports)


def _spread(table: npt.NDArray[Any], texts: Texts, reports: int) -> npt.NDArray[Any]:
    if not texts.numbers:
        return np.full(reports, table[0])
    return table[np.array(texts.numbers, np.uint32)]


def activity_columns(batch: ActivityBatch, words: Dictionaries) -> Columns:
    """Turn a record of the activity topic into grouping's columns.

    Raises:
        ValueError: the columns do not fit together, or hold what a gateway does not write.
    """
    n = len(batch)
    update = np.zeros(n, np.uint16)
    inventory = np.zeros(n, np.uint32)
    sets: list[tuple[int, ...]] = [()]
    try:
        kinds = np.frombuffer(batch.kinds.encode(), np.uint8)
        installed = kinds == ord(INSTALLED)
        changed = np.flatnonzero(kinds != ord(CHECK_IN))
        if len(changed):
            if not (installed | (kinds == ord(OFFERED)))[changed].all():
                raise ValueError("a kind's letter is not known")
            numbers = [words.update_number(name.vendor, name.product, name.version) for name in batch.updates]
            update[changed] = np.array(numbers, np.uint16)[np.array(batch.changed, np.uint32)]
        if batch.listed:
            sets.extend(words.inventory(versions) for versions in batch.inventories)
            inventory[np.array(batch.listed_at, np.uint32)] = np.arange(1, len(sets), dtype=np.uint32)[
                np.array(batch.listed, np.uint32)
            ]
        at, boot_at = _times(batch.at_ms, batch.boot_at_ms, batch.received_at_ms)
        columns = Columns(
            _keys(batch.devices),
            np.array(batch.seq, np.uint64),
            at,
            boot_at,
            _spread(words.build_numbers(batch.os_build.words), batch.os_build, n),
            _numbered(words.forms, batch.form_factor, n, np.uint8),
            _numbered(words.models, batch.model, n, np.uint16),
            _numbered(words.rings, batch.ring, n, np.uint8),
            _numbered(words.tenants, batch.tenant, n, np.uint16),
            update,
            installed,
            inventory,
            sets,
        )
    except (OverflowError, IndexError) as error:
        raise ValueError(f"an activity record does not fit together: {error}") from error
    columns.check(n)
    return columns


def _times(
    at_ms: Sequence[int], boot_at_ms: Sequence[int], received_at_ms: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return event and boot times in seconds, neither later than the time received.

    Raises:
        ValueError: a time is a unit error.
        OverflowError: a time has more than 64 bits.
    """
    at, boot_at = np.array(at_ms, np.int64), np.array(boot_at_ms, np.int64)
    low, high = min(at.min(), boot_at.min()), max(at.max(), boot_at.max(), received_at_ms)
    if low < TIME_MIN_MS or high > TIME_MAX_MS or received_at_ms < TIME_MIN_MS:
        raise ValueError(f"times from {low} to {high} ms are not milliseconds since the epoch")
    if len(at) != len(boot_at):
        raise ValueError(f"{len(boot_at)} boot times for {len(at)} reports")
    at = np.minimum(at, received_at_ms) // 1000
    return at.astype(np.uint32), np.minimum(boot_at // 1000, at).astype(np.uint32)


def crash_columns(batch: CrashBatch, words: Dictionaries) -> Columns:
    """Turn crash reports into grouping's columns.

    Raises:
        ValueError: a pseudonym is not 16 hexadecimal digits, or a number is out of its range.
    """
    reports = batch.reports
    n = len(reports)
    try:
        at, boot_at = _times([r.at_ms for r in reports], [r.boot_at_ms for r in reports], batch.received_at_ms)
        columns = Columns(
            keys_of([report.device for report in reports]),
            np.array([report.seq for report in reports], np.uint64),
            at,
            boot_at,
            words.build_numbers([report.os_build for report in reports]),
            np.fromiter(words.forms.numbers(report.form_factor for report in reports), np.uint8, n),
            np.fromiter(words.models.numbers(report.model for report in reports), np.uint16, n),
            np.fromiter(words.rings.numbers(report.ring for report in reports), np.uint8, n),
            np.fromiter(words.tenants.numbers(report.tenant for report in reports), np.uint16, n),
            np.zeros(n, np.uint16),
            np.zeros(n, bool),
            np.zeros(n, np.uint32),
            [()],
        )
    except OverflowError as error:
        raise ValueError(f"a number is out of its range: {error}") from error
    columns.check(n)
    return columns


def join(parts: Sequence[Columns]) -> Columns:
    """Return several sets of columns as one, in order; equal sets of versions become one."""
    if len(parts) == 1:
        return parts[0]
    places: dict[tuple[int, ...], int] = {(): 0}
    inventories = []
    for part in parts:
        table = np.array([places.setdefault(versions, len(places)) for versions in part.sets], np.uint32)
        inventories.append(table[part.inventory] if len(table) > 1 else part.inventory)
    arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS[:-1]]
    return _columns([*arrays, np.concatenate(inventories)], list(places))
