"""The wire type of `cordon.deadletter.v1`: what a stage could not use, why, and where it came from.

Every stage behind the log uses this one form. Invariants: nothing bad stops a stage, every unusable record is counted
by reason, and what it costs the log is bounded: the value and the detail are cut, and a flood gets `LETTERS_MAX`
letters at a time, the last of which says how many more there were.
"""

import base64
import enum
from collections.abc import Sequence
from typing import Literal

import msgspec

from ingest.events import SCHEMA_WRITTEN, encoder
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.metrics import Metrics

VALUE_BYTES_MAX = 8192
DETAIL_CHARS_MAX = 1024
LETTERS_MAX = 100

Stage = Literal["gateway", "grouping", "detection", "signals", "store"]


class DeadReason(enum.StrEnum):
    """Why a record could not be used, as a closed word: in the letter and in the metric's label."""

    UNREADABLE = "unreadable"
    UNREADABLE_REPORT = "unreadable_report"
    INCONSISTENT = "inconsistent"
    WRONG_PARTITION = "wrong_partition"
    LOG_GAP = "log_gap"
    UNAUTHENTICATED = "unauthenticated"
    REFUSED = "refused"


DEAD_REASON_DOCS: dict[DeadReason, str] = {
    DeadReason.UNREADABLE: "The record is not of a form that this topic carries: not JSON, or a field of a wrong type.",
    DeadReason.UNREADABLE_REPORT: "Some reports of the record are not of their form; the others were used.",
    DeadReason.INCONSISTENT: "The record decodes, but its parts do not fit together: columns of different lengths.",
    DeadReason.WRONG_PARTITION: "The record holds a device that belongs to another partition; none of it was used.",
    DeadReason.UNAUTHENTICATED: "An intake record without a token, or with one that is not known to the gateway.",
    DeadReason.REFUSED: "The gateway's checks refused an intake record, or one of its reports; the detail says why.",
    DeadReason.LOG_GAP: "Retention took records before the stage had read them. Keep more, or find what slows it.",
}


class DeadLetter(msgspec.Struct, kw_only=True):
    """One record of `cordon.deadletter.v1`.

    Attributes:
        stage: who could not use it.
        reason: why, as a closed word.
        topic: where the record lay.
        partition: the partition of that topic.
        offset: the record's offset there.
        detail: what is wrong and where in the record, for a person; cut to 1,024 characters.
        value: the record's first 8 KiB, base64.
        value_bytes: how many bytes the record had.
        at_ms: when the record was appended; where it is gone, when that was noticed.
        dropped: on the last letter of a flood, how many more there were that are only counted.
    """

    schema: int = SCHEMA_WRITTEN
    stage: Stage
    reason: DeadReason
    topic: str
    partition: int
    offset: int
    detail: str = ""
    value: str = ""
    value_bytes: int = 0
    at_ms: int
    dropped: int = 0


def letter_of(stage: Stage, source: TopicPartition, record: Record, reason: DeadReason, detail: str = "") -> DeadLetter:
    """Return the letter for a record that can't be used; value and detail are cut to their bounds."""
    value = record.value or b""
    return DeadLetter(
        stage=stage,
        reason=reason,
        topic=source.topic,
        partition=source.partition,
        offset=record.offset,
        detail=detail[:DETAIL_CHARS_MAX],
        value=base64.b64encode(value[:VALUE_BYTES_MAX]).decode(),
        value_bytes=len(value),
        at_ms=record.appended_at_ms,
    )


def entries_of(letters: Sequence[DeadLetter], topic: str, metrics: Metrics) -> list[Entry]:
    """Count all letters, and return the log entries of the first `LETTERS_MAX`.

    Args:
        letters: what could not be used since the last call.
        topic: name of the dead-letter topic in this lane.
        metrics: where they are counted by reason.
    """
    for letter in letters:
        metrics.count("deadletters_total", reason=letter.reason.value)
    named = list(letters[:LETTERS_MAX])
    if len(letters) > len(named):
        named[-1] = msgspec.structs.replace(named[-1], dropped=len(letters) - len(named))
    return [Entry(topic, 0, letter.topic.encode(), encoder.encode(letter)) for letter in named]


deadletter_decoder = msgspec.json.Decoder(DeadLetter)
