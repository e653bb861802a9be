"""Records of the activity topic to the store's rows: check-ins are counted by column, installs kept one by one.

Called by the sink for every activity record, in the interpreter that the pipeline shares: counting goes by numbers, so
that a check-in costs a fraction of a microsecond. A record whose columns do not fit together is dead-lettered as a
whole: a gateway does not write such a thing.
"""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.activity import CHECK_IN, OFFERED, ActivityBatch, Texts, activity_decoder, column
from ingest.events import TIME_MAX_MS, TIME_MIN_MS
from ingest.log.interface import Record, TopicPartition
from ingest.store.rows import Block, CheckInKey

_MINUTE_MS = 60_000
_COUNTED = ("tenant", "ring", "os_build")


def decode_activity(record: Record, source: TopicPartition, first: int, block: Block) -> None:
    """Count the check-ins of a record of the activity topic and keep its offers and installs.

    Raises:
        ValueError: the record's columns do not fit together, or a time is out of its range.
        msgspec.MsgspecError: the record is not one of the topic's.
    """
    batch = activity_decoder.decode(record.value or b"")
    if not isinstance(batch, ActivityBatch) or not batch.kinds:
        return
    try:
        _check(batch)
        kinds = np.frombuffer(batch.kinds.encode(), np.uint8)
        check_ins = kinds == ord(CHECK_IN)
        counted = _count(batch, check_ins) if check_ins.any() else Counter()
        rows = _installs(batch, np.flatnonzero(~check_ins).tolist(), record, source, first)
    except IndexError as error:
        raise ValueError(f"an activity record does not fit together: {error}") from error
    if counted:
        block.count_check_ins(source.partition, first, counted)
    block.reports += len(batch)
    block.add("installs", rows)


def _check(batch: ActivityBatch) -> None:
    size = len(batch)
    if any(len(numbers) != size for numbers in (batch.seq, batch.at_ms, batch.boot_at_ms)):
        raise ValueError(f"an activity record of {size} reports has columns of other lengths")
    if len(batch.devices) != 16 * size:
        raise ValueError(f"an activity record of {size} reports names other devices")
    for times in ([batch.received_at_ms], batch.at_ms, batch.boot_at_ms):
        if min(times) < TIME_MIN_MS or max(times) > TIME_MAX_MS:
            raise ValueError("an activity record has a time out of its range")
    if min(batch.seq) < 0 or max(batch.seq) >= 2**63:
        raise ValueError("an activity record has a sequence number out of its range")


def _numbers(texts: Texts, reports: int) -> npt.NDArray[np.int64]:
    if not texts.numbers:
        return np.zeros(reports, np.int64)
    numbers = np.array(texts.numbers, np.int64)
    if len(numbers) != reports or int(numbers.min()) < 0 or int(numbers.max()) >= len(texts.words):
        raise ValueError("a text column of an activity record does not fit its reports")
    return numbers


def _count(batch: ActivityBatch, check_ins: npt.NDArray[np.bool_]) -> Counter[CheckInKey]:
    """Count by minute, tenant, ring and OS build, through one number for the four."""
    columns = [getattr(batch, name) for name in _COUNTED]
    minute = np.array(batch.at_ms, np.int64)[check_ins] // _MINUTE_MS
    base = int(minute.min())
    code = minute - base
    for texts in columns:
        code = code * len(texts.words) + _numbers(texts, len(batch))[check_ins]
    found, counts = np.unique(code, return_counts=True)
    counted: Counter[CheckInKey] = Counter()
    for number, count in zip(found.tolist(), counts.tolist(), strict=True):
        rest, words = number, []
        for texts in reversed(columns):
            rest, place = divmod(rest, len(texts.words))
            words.append(texts.words[place])
        os_build, ring, tenant = words
        counted[base + rest, tenant, ring, os_build] = count
    return counted


def _installs(
    batch: ActivityBatch, places: list[int], record: Record, source: TopicPartition, first: int
) -> list[tuple[Any, ...]]:
    if not places:
        return []
    size = len(batch)
    texts = {
        name: column(getattr(batch, name), size)
        for name in ("tenant", "os_build", "form_factor", "model", "ring", "site")
    }
    rows = []
    for place, number, boot_id in zip(places, batch.changed, batch.changed_boots, strict=True):
        update = batch.updates[number]
        kind = "offered" if batch.kinds[place] == OFFERED else "installed"
        rows.append((
            kind, batch.devices[16 * place : 16 * place + 16], batch.seq[place], batch.at_ms[place],
            batch.received_at_ms, boot_id, batch.boot_at_ms[place], *(texts[n][place] for n in ("tenant", "os_build")),
            *(texts[n][place] for n in ("form_factor", "model", "ring", "site")), update.vendor, update.product,
            update.update_kind, update.version, batch.gateway, source.partition, record.offset, place, first,
        ))  # fmt: skip
    return rows
