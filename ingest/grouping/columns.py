"""Records of a device topic to columns: the one place where grouping touches single reports in Python.

Only the fields that grouping needs are decoded; texts become numbers in the partition's dictionaries. What is decoded
here was checked by a gateway, but a record is still trusted for nothing: one that does not decode is handed back as
`None`, to be dead-lettered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice, Tick
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


class _CheckIn(_Lean, tag="check_in", kw_only=True, gc=False):
    versions: msgspec.Raw = msgspec.Raw(b"{}")


class _Offered(_Lean, tag="offered", kw_only=True, gc=False):
    vendor: str
    product: str
    version: str


class _Installed(_Lean, tag="installed", kw_only=True, gc=False):
    vendor: str
    product: str
    version: str


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


class ActivityBatch(msgspec.Struct, tag_field="kind", tag="batch", kw_only=True):
    """A batch of the activity topic, as grouping reads it."""

    reports: list[_CheckIn | _Offered | _Installed]


class CrashBatch(msgspec.Struct, tag_field="kind", tag="batch", kw_only=True):
    """A batch of the crash topic, as grouping reads it."""

    reports: list[Bsod | BootLoop]
    received_at_ms: int


_activity: msgspec.json.Decoder[ActivityBatch | Tick | RolloutNotice] = msgspec.json.Decoder(
    ActivityBatch | Tick | RolloutNotice
)
_crashes: msgspec.json.Decoder[CrashBatch | Tick | RolloutNotice] = msgspec.json.Decoder(
    CrashBatch | Tick | RolloutNotice
)
_inventory = msgspec.json.Decoder(dict[str, str])

Bytes8 = npt.NDArray[np.uint8]


def decode_activity(value: bytes) -> ActivityBatch | Tick | RolloutNotice | None:
    """Decode a record of the activity topic; None where it cannot be."""
    try:
        return _activity.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None


def decode_crashes(value: bytes) -> CrashBatch | Tick | RolloutNotice | None:
    """Decode a record of the crash topic; None where it cannot be."""
    try:
        return _crashes.decode(value)
    except (msgspec.DecodeError, RecursionError):
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
        self._inventory_numbers: dict[bytes, int] = {b"{}": 0}
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

    def inventory_number(self, raw: bytes) -> int:
        """Return the number of a set of versions as raw JSON; equal sets are decoded once."""
        known = self._inventory_numbers.get(raw)
        if known is not None:
            return known
        if len(self.inventories) >= INVENTORIES_MAX:
            self._inventory_numbers, self.inventories = {b"{}": 0}, [()]
        try:
            versions = _inventory.decode(raw)
        except msgspec.DecodeError:
            versions = {}
        updates = tuple(self._number_update(product, version) for product, version in versions.items())
        self._inventory_numbers[raw] = len(self.inventories)
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

    def take(self, where: npt.NDArray[Any]) -> "Columns":
        """Return the columns at the given places."""
        return Columns(*(getattr(self, name)[where] for name in self.__slots__))


def keys_of(pseudonyms: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return pseudonyms (16 hexadecimal digits each) as numbers; the first digit is the most significant.

    Raises:
        ValueError: one of them is not of that form.
    """
    packed = bytes.fromhex("".join(pseudonyms))
    if len(packed) != 8 * len(pseudonyms):
        raise ValueError("a pseudonym is not 16 hexadecimal digits")
    return np.frombuffer(packed, ">u8").astype(np.uint64)


def columns_of(reports: Sequence[_Lean], words: Dictionaries) -> Columns:
    """Turn decoded reports into columns.

    Raises:
        ValueError: a pseudonym is not 16 hexadecimal digits, or a number is out of its range.
    """
    n = len(reports)
    fields = attrgetter("device", "seq", "at_ms", "boot_at_ms", "os_build", "form_factor", "model", "ring", "tenant")
    device, seq, at, boot, build, form, model, ring, tenant = zip(*map(fields, reports), strict=True)
    update = np.zeros(n, np.uint16)
    installed = np.zeros(n, bool)
    inventory = np.zeros(n, np.uint32)
    for place, report in enumerate(reports):
        if type(report) is _CheckIn:
            raw = report.versions
            if len(raw) > 2:
                inventory[place] = words.inventory_number(bytes(raw))
        elif type(report) is _Offered or type(report) is _Installed:
            change = cast("_Offered", report)
            update[place] = words.update_number(change.vendor, change.product, change.version)
            installed[place] = type(report) is _Installed
    try:
        return Columns(
            keys_of(device),
            np.array(seq, np.uint64),
            (np.array(at, np.int64) // 1000).astype(np.uint32),
            (np.array(boot, np.int64) // 1000).astype(np.uint32),
            words.build_numbers(build),
            np.fromiter(words.forms.numbers(form), np.uint8, n),
            np.fromiter(words.models.numbers(model), np.uint16, n),
            np.fromiter(words.rings.numbers(ring), np.uint8, n),
            np.fromiter(words.tenants.numbers(tenant), np.uint16, n),
            update,
            installed,
            inventory,
        )
    except OverflowError as error:
        raise ValueError(f"a number is out of its range: {error}") from error


def join(parts: Sequence[Columns]) -> Columns:
    """Return several sets of columns as one, in order."""
    if len(parts) == 1:
        return parts[0]
    return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in Columns.__slots__))


def all_reports(batches: Sequence[ActivityBatch]) -> list[Any]:
    """Return the reports of several batches as one list."""
    return list(chain.from_iterable(batch.reports for batch in batches))
