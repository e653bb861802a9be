"""The wire type of an activity record: many offered, installed and check-in reports, by columns.

Activity outnumbers crashes ten thousand to one, and most of what a check-in says it said before. By columns, with each
text once in a record, a record is a fourth of the size and grouping reads it in a third of the time that rows take (the
package README has the figures). It is JSON all the same. Crash records keep their rows: they are few, and people read
them.

Invariant: `pack` and `unpack` are each other's inverse, but for the boot ids of check-ins, which nobody reads.
"""

from collections.abc import Sequence

import msgspec

from ingest.events import SCHEMA_WRITTEN, CheckIn, Installed, Offered, RolloutNotice, Tick

Activity = Offered | Installed | CheckIn
CHECK_IN, OFFERED, INSTALLED = "c", "o", "i"
_LETTER: dict[type, str] = {CheckIn: CHECK_IN, Offered: OFFERED, Installed: INSTALLED}
_KIND = {CHECK_IN: "check_in", OFFERED: "offered", INSTALLED: "installed"}
_TEXTS = ("os_build", "form_factor", "model", "ring", "site", "tenant")


class Texts(msgspec.Struct, array_like=True):
    """A column of texts.

    Attributes:
        words: each distinct text once, in order of first sight.
        numbers: each report's place among them; empty where all share the first.
    """

    words: list[str]
    numbers: list[int]


class UpdateName(msgspec.Struct, array_like=True, frozen=True):
    """What an `offered` or `installed` names."""

    vendor: str
    product: str
    update_kind: str
    version: str


class ActivityBatch(msgspec.Struct, tag_field="kind", tag="activity", kw_only=True):
    """Activity reports of one partition, in the order they came; every column has one entry a report.

    Attributes:
        received_at_ms: the gateway's clock when it closed the batch.
        seq: the reports' sequence numbers.
        at_ms: when they happened, by the devices' clocks.
        boot_at_ms: when the devices' boots began.
        os_build: OS builds, with revision.
        ring: rings the devices are eligible for.
        site: sites, as their tenants name them.
        tenant: tenants.
        devices: the devices' pseudonyms, 16 hexadecimal digits each, joined.
        kinds: one letter a report: `c` check_in, `o` offered, `i` installed.
        updates: the distinct updates that offered and installed reports name.
        changed: for each of those reports, in order, the number of its update.
        changed_boots: for each of those reports, in order, its boot id.
        inventories: the distinct sets of versions that check-ins carry.
        listed_at: places of the check-ins that carry one.
        listed: for each of those, the number of its set.
    """

    schema: int = SCHEMA_WRITTEN
    gateway: str
    received_at_ms: int
    devices: str
    kinds: str
    seq: list[int]
    at_ms: list[int]
    boot_at_ms: list[int]
    os_build: Texts
    form_factor: Texts
    model: Texts
    ring: Texts
    site: Texts
    tenant: Texts
    updates: list[UpdateName] = []
    changed: list[int] = []
    changed_boots: list[str] = []
    inventories: list[dict[str, str]] = []
    listed_at: list[int] = []
    listed: list[int] = []

    def __len__(self) -> int:
        """Return the number of reports."""
        return len(self.kinds)


ActivityRecord = ActivityBatch | Tick | RolloutNotice
activity_decoder: msgspec.json.Decoder[ActivityRecord] = msgspec.json.Decoder(ActivityRecord)


class _Numbers(dict[str, int]):
    """Texts to numbers in order of first sight."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number


def _texts(values: list[str]) -> Texts:
    numbers = _Numbers()
    column = [numbers[value] for value in values]
    return Texts(list(numbers), column if len(numbers) > 1 else [])


def pack(reports: Sequence[Activity], gateway: str, received_at_ms: int) -> ActivityBatch:
    """Return checked, pseudonymised reports of one partition as one batch.

    Args:
        reports: in order of arrival; `device` is a pseudonym of 16 hexadecimal digits.
        gateway: the gateway's name.
        received_at_ms: its clock, in milliseconds since the epoch.
    """
    kinds = "".join([_LETTER[type(report)] for report in reports])
    batch = ActivityBatch(
        gateway=gateway,
        received_at_ms=received_at_ms,
        devices="".join([report.device for report in reports]),
        kinds=kinds,
        seq=[report.seq for report in reports],
        at_ms=[report.at_ms for report in reports],
        boot_at_ms=[report.boot_at_ms for report in reports],
        os_build=_texts([report.os_build for report in reports]),
        form_factor=_texts([report.form_factor for report in reports]),
        model=_texts([report.model for report in reports]),
        ring=_texts([report.ring for report in reports]),
        site=_texts([report.site for report in reports]),
        tenant=_texts([report.tenant for report in reports]),
    )
    _pack_updates(batch, reports)
    return batch


def _pack_updates(batch: ActivityBatch, reports: Sequence[Activity]) -> None:
    updates: dict[tuple[str, str, str, str], int] = {}
    inventories: dict[tuple[tuple[str, str], ...], int] = {}
    for place, report in enumerate(reports):
        if isinstance(report, CheckIn):
            if report.versions:
                batch.listed_at.append(place)
                batch.listed.append(inventories.setdefault(tuple(report.versions.items()), len(inventories)))
        else:
            name = (report.vendor, report.product, report.update_kind, report.version)
            batch.changed.append(updates.setdefault(name, len(updates)))
            batch.changed_boots.append(report.boot_id)
    batch.updates = [UpdateName(*name) for name in updates]
    batch.inventories = [dict(items) for items in inventories]


def column(texts: Texts, reports: int) -> list[str]:
    """Return a column of texts, one for each of `reports` reports.

    Raises:
        ValueError: the column is not of that length.
    """
    if not texts.numbers:
        return texts.words[:1] * reports
    if len(texts.numbers) != reports:
        raise ValueError(f"a column has {len(texts.numbers)} entries for {reports} reports")
    return [texts.words[number] for number in texts.numbers]


def unpack(batch: ActivityBatch) -> list[Activity]:
    """Return the batch's reports as structs: for tests, tools and people; stages read the columns.

    Raises:
        ValueError: the columns do not fit together.
        IndexError: a number points past its words.
        KeyError: a kind's letter is not known.
        msgspec.ValidationError: a value is out of its range.
    """
    size = len(batch)
    texts = [column(getattr(batch, name), size) for name in _TEXTS]
    if len(batch.devices) != 16 * size:
        raise ValueError(f"{len(batch.devices)} digits of pseudonyms for {size} reports")
    if len(batch.changed) != size - batch.kinds.count(CHECK_IN):
        raise ValueError(f"{len(batch.changed)} updates for {size - batch.kinds.count(CHECK_IN)} offered or installed")
    changes = zip(batch.changed, batch.changed_boots, strict=True)
    listed = dict(zip(batch.listed_at, batch.listed, strict=True))
    reports = []
    for place, letter in enumerate(batch.kinds):
        fields: dict[str, object] = {name: texts[number][place] for number, name in enumerate(_TEXTS)}
        fields["device"] = batch.devices[16 * place : 16 * place + 16]
        fields["kind"] = _KIND[letter]
        fields.update({name: getattr(batch, name)[place] for name in ("seq", "at_ms", "boot_at_ms")})
        if letter == CHECK_IN:
            fields["boot_id"] = "-"
            fields["versions"] = batch.inventories[listed[place]] if place in listed else {}
        else:
            number, fields["boot_id"] = next(changes)
            fields.update(msgspec.structs.asdict(batch.updates[number]))
        reports.append(fields)
    return msgspec.convert(reports, list[Activity])
