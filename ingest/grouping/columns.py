"""Records of a device topic to columns: the one place where grouping touches single reports in Python.

Only the fields that grouping needs are decoded; texts become numbers in the partition's dictionaries. What is decoded
here was checked by a gateway, but a record is still trusted for nothing: one that does not decode is handed back as
`None`, to be dead-lettered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.activity import CHECK_IN, INSTALLED, ActivityBatch, ActivityRecord, Texts, activity_decoder
from ingest.events import UNREADABLE_ERRORS, RolloutNotice, Tick
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
        self._inventory_numbers: dict[tuple[tuple[str, str], ...], int] = {(): 0}
        self.inventories: list[tuple[int, ...]] = [()]

    def named(self) -> dict[str, Words]:
        """Return the dictionaries that a snapshot keeps, by name; the rest is derived."""
        names = ("os_builds", "models", "tenants", "rings", "forms", "updates")
        return {name: getattr(self, name) for name in names}

    def derive(self) -> None:
        """Make what follows from loaded dictionaries."""
        for number, text in enumerate(self.os_builds.texts):
            self.family_of[number] = self.families[text.partition(".")[0]]
        for number, text in enumerate(self.updates.texts):
            self.product_of[number] = self.products[text.rpartition("@")[0]]

    def update_number(self, vendor: str, product: str, version: str) -> int:
        """Return the number of an update; 0 where the dictionary is full."""
        key = (vendor, product, version)
        known = self._update_keys.get(key)
        if known is None:
            known = self._number_update(f"{vendor}/{product}", version)
            if len(self._update_keys) < UPDATES_MAX:
                self._update_keys[key] = known
        return known

    def inventory_number(self, versions: dict[str, str]) -> int:
        """Return the number of a set of versions; number 0 is the empty set."""
        key = tuple(versions.items())
        known = self._inventory_numbers.get(key)
        if known is not None:
            return known
        if len(self.inventories) >= INVENTORIES_MAX:
            self._inventory_numbers, self.inventories = {(): 0}, [()]
        updates = tuple(self._number_update(product, version) for product, version in key)
        self._inventory_numbers[key] = len(self.inventories)
        self.inventories.append(tuple(update for update in updates if update))
        return len(self.inventories) - 1

    def _number_update(self, product_key: str, version: str) -> int:
        number = self.updates[f"{product_key}@{version}"]
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

    `update` is the update offered or installed (0 elsewhere), `installed` tells which of the two, `inventory` the
    number of the check-in's set of versions.
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

    def __len__(self) -> int:
        """Return the number of reports."""
        return len(self.key)

    def check(self, reports: int) -> None:
        """Check that every column has one entry for each of `reports` reports.

        Raises:
            ValueError: one has not.
        """
        for name in self.__slots__:
            if len(getattr(self, name)) != reports:
                raise ValueError(f"column {name} has {len(getattr(self, name))} entries for {reports} reports")

    def take(self, where: npt.NDArray[Any]) -> "Columns":
        """Return the columns at the given places."""
        return Columns(*(getattr(self, name)[where] for name in self.__slots__))


def keys_of(pseudonyms: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return pseudonyms (16 hexadecimal digits each) as numbers; the first digit is the most significant.

    Raises:
        ValueError: one of them is not of that form.
    """
    return np.frombuffer(bytes.fromhex("".join(pseudonyms)), ">u8").astype(np.uint64)


def _numbered(words: Words, texts: Texts, reports: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return a column of texts as numbers of the dictionary, shape (reports,)."""
    table = np.fromiter(words.numbers(texts.words), dtype, len(texts.words))
    return _spread(table, texts, reports)


def _spread(table: npt.NDArray[Any], texts: Texts, reports: int) -> npt.NDArray[Any]:
    if not texts.numbers:
        return np.full(reports, table[0])
    return table[np.array(texts.numbers, np.int64)]


def activity_columns(batch: ActivityBatch, words: Dictionaries) -> Columns:
    """Turn a record of the activity topic into grouping's columns.

    Raises:
        ValueError: the columns do not fit together, or hold what a gateway does not write.
    """
    n = len(batch)
    update = np.zeros(n, np.uint16)
    inventory = np.zeros(n, np.uint32)
    try:
        kinds = np.frombuffer(batch.kinds.encode(), np.uint8)
        changed = np.flatnonzero(kinds != ord(CHECK_IN))
        if len(changed):
            numbers = [words.update_number(name.vendor, name.product, name.version) for name in batch.updates]
            update[changed] = np.array(numbers, np.uint16)[np.array(batch.changed, np.int64)]
        if batch.listed:
            sets = np.array([words.inventory_number(versions) for versions in batch.inventories], np.uint32)
            inventory[np.array(batch.listed_at, np.int64)] = sets[np.array(batch.listed, np.int64)]
        columns = Columns(
            keys_of([batch.devices]),
            np.array(batch.seq, np.uint64),
            _seconds(batch.at_ms),
            _seconds(batch.boot_at_ms),
            _spread(words.build_numbers(batch.os_build.words), batch.os_build, n),
            _numbered(words.forms, batch.form_factor, n, np.uint8),
            _numbered(words.models, batch.model, n, np.uint16),
            _numbered(words.rings, batch.ring, n, np.uint8),
            _numbered(words.tenants, batch.tenant, n, np.uint16),
            update,
            kinds == ord(INSTALLED),
            inventory,
        )
    except (OverflowError, IndexError) as error:
        raise ValueError(f"an activity record does not fit together: {error}") from error
    columns.check(n)
    return columns


def _seconds(times_ms: Sequence[int]) -> npt.NDArray[np.uint32]:
    return (np.array(times_ms, np.int64) // 1000).astype(np.uint32)


def crash_columns(reports: Sequence[Bsod], words: Dictionaries) -> Columns:
    """Turn crash reports into grouping's columns.

    Raises:
        ValueError: a pseudonym is not 16 hexadecimal digits, or a number is out of its range.
    """
    n = len(reports)
    try:
        columns = Columns(
            keys_of([report.device for report in reports]),
            np.array([report.seq for report in reports], np.uint64),
            _seconds([report.at_ms for report in reports]),
            _seconds([report.boot_at_ms for report in reports]),
            words.build_numbers([report.os_build for report in reports]),
            np.fromiter(words.forms.numbers(report.form_factor for report in reports), np.uint8, n),
            np.fromiter(words.models.numbers(report.model for report in reports), np.uint16, n),
            np.fromiter(words.rings.numbers(report.ring for report in reports), np.uint8, n),
            np.fromiter(words.tenants.numbers(report.tenant for report in reports), np.uint16, n),
            np.zeros(n, np.uint16),
            np.zeros(n, bool),
            np.zeros(n, np.uint32),
        )
    except OverflowError as error:
        raise ValueError(f"a number is out of its range: {error}") from error
    columns.check(n)
    return columns


def join(parts: Sequence[Columns]) -> Columns:
    """Return several sets of columns as one, in order."""
    if len(parts) == 1:
        return parts[0]
    return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in Columns.__slots__))
