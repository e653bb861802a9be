"""The wire type of an activity record: many offered, installed and check-in reports, by columns.

Activity outnumbers crashes ten thousand to one, and most of what a check-in says it said before. By columns, with each
text once in a record, a record is a fourth of the size and grouping reads it in a third of the time that rows take (the
package README has the figures). It is JSON all the same. Crash records keep their rows: they are few, and people read
them.

Invariant: `pack` and `unpack` are each other's inverse, but for the boot ids of check-ins, which nobody reads.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ingest.events import SCHEMA_WRITTEN, CheckIn, Installed, Offered, RecordSchema, RolloutNotice, Tick

Activity = Offered | Installed | CheckIn
CHECK_IN, OFFERED, INSTALLED = "c", "o", "i"
_KIND = {CHECK_IN: "check_in", OFFERED: "offered", INSTALLED: "installed"}
_TEXTS = ("os_build", "form_factor", "model", "ring", "site", "tenant")
# What a report leaves in the list of values: three numbers, two texts, and the numbers of six texts.
_WIDTH = 11


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

    schema: RecordSchema = SCHEMA_WRITTEN
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


class _Numbers(dict[Any, int]):
    """Values to numbers in order of first sight."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self)
        return number


def _texts(words: _Numbers, numbers: list[int]) -> Texts:
    return Texts(list(words), numbers if len(words) > 1 else [])


class ActivityBuffer:
    """Columns in the making: reports of one partition that wait to be written, in the order they came.

    A report is taken apart at once, while the processor's cache has it: passes over some thousands of waiting reports,
    one pass a column, cost twice as much. Its values go side by side into one list, which a stride takes
    apart in the end.
    """

    def __init__(self, reports_max: int) -> None:
        """Put at most `reports_max` reports in a batch."""
        self._full = reports_max * _WIDTH
        self._done: list[ActivityBatch] = []
        self._begin()

    def _begin(self) -> None:
        self._values: list[Any] = []
        self._os_build, self._form_factor, self._model = _Numbers(), _Numbers(), _Numbers()
        self._ring, self._site, self._tenant = _Numbers(), _Numbers(), _Numbers()
        self._updates, self._inventories = _Numbers(), _Numbers()
        self._changed: list[int] = []
        self._changed_boots: list[str] = []
        self._listed_at: list[int] = []
        self._listed: list[int] = []

    def append(self, report: Activity) -> None:
        """Take a checked, pseudonymised report's values; the report itself is not kept."""
        values = self._values
        if len(values) == self._full:
            self._end()
            values = self._values
        if isinstance(report, CheckIn):
            letter = CHECK_IN
            if report.versions:
                self._listed_at.append(len(values) // _WIDTH)
                self._listed.append(self._inventories[tuple(report.versions.items())])
        else:
            letter = OFFERED if isinstance(report, Offered) else INSTALLED
            self._changed.append(self._updates[report.vendor, report.product, report.update_kind, report.version])
            self._changed_boots.append(report.boot_id)
        values += (
            report.device,
            letter,
            report.seq,
            report.at_ms,
            report.boot_at_ms,
            self._os_build[report.os_build],
            self._form_factor[report.form_factor],
            self._model[report.model],
            self._ring[report.ring],
            self._site[report.site],
            self._tenant[report.tenant],
        )

    def _end(self) -> None:
        """Close the batch in the making and begin the next one."""
        values = self._values
        self._done.append(
            ActivityBatch(
                gateway="",
                received_at_ms=0,
                devices="".join(values[0::_WIDTH]),
                kinds="".join(values[1::_WIDTH]),
                seq=values[2::_WIDTH],
                at_ms=values[3::_WIDTH],
                boot_at_ms=values[4::_WIDTH],
                os_build=_texts(self._os_build, values[5::_WIDTH]),
                form_factor=_texts(self._form_factor, values[6::_WIDTH]),
                model=_texts(self._model, values[7::_WIDTH]),
                ring=_texts(self._ring, values[8::_WIDTH]),
                site=_texts(self._site, values[9::_WIDTH]),
                tenant=_texts(self._tenant, values[10::_WIDTH]),
                updates=[UpdateName(*update) for update in self._updates],
                changed=self._changed,
                changed_boots=self._changed_boots,
                inventories=[dict(items) for items in self._inventories],
                listed_at=self._listed_at,
                listed=self._listed,
            )
        )
        self._begin()

    def batches(self, gateway: str, received_at_ms: int) -> list[ActivityBatch]:
        """Return all reports as batches and begin anew.

        Args:
            gateway: the gateway's name.
            received_at_ms: its clock, in milliseconds since the epoch.
        """
        if self._values:
            self._end()
        done, self._done = self._done, []
        for batch in done:
            batch.gateway, batch.received_at_ms = gateway, received_at_ms
        return done


def pack(reports: Sequence[Activity], gateway: str, received_at_ms: int) -> ActivityBatch:
    """Return checked, pseudonymised reports of one partition as one batch.

    Args:
        reports: in order of arrival; `device` is a pseudonym of 16 hexadecimal digits.
        gateway: the gateway's name.
        received_at_ms: its clock, in milliseconds since the epoch.
    """
    buffer = ActivityBuffer(len(reports))
    for report in reports:
        buffer.append(report)
    buffer._end()
    (batch,) = buffer.batches(gateway, received_at_ms)
    return batch


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
