"""The wire types of `cordon.alerts.v1`: an alert, and how the watch that raises them stands.

An alert asks a person to look. No part of Cordon that decides on a rollout reads this topic. The topic is compacted by
key: an alert's id, `status`, and the pieces of the watch's own state, which only the watch reads.
"""

import enum
from typing import Annotated, Final

import msgspec

TEXT_CHARS_MAX: Final = 128
# Alerts that are open at once, and ended ones that are kept.
OPEN_MAX: Final = 256
ENDED_MAX: Final = 512
STATUS_KEY: Final = b"status"
STATE_NAME: Final = "state"
# Every alert's id begins with it, and no other key does.
ID_PREFIX: Final = "a-"


class AlertState(enum.StrEnum):
    """Whether the pattern still crashes beyond the usual."""

    OPEN = "open"
    ENDED = "ended"


class AlertPlace(msgspec.Struct, array_like=True, frozen=True):
    """Where a pattern was found beyond the usual: the numbers of the hour it was found in.

    Attributes:
        os_build: of the devices; empty with an empty model: over all machines.
        model: of the devices; empty where unknown.
        crashes: in that hour.
        devices: different devices that crashed in it.
        expected: crashes that its own past led to expect.
        log10_evidence: log10 of the e-value.
        log10_needed: log10 of what e-LOND asked for.
    """

    os_build: str
    model: str
    crashes: int
    devices: int
    expected: float
    log10_evidence: float
    log10_needed: float


class Alert(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="alert"):
    """A crash pattern beyond the usual that belongs to no rollout under watch.

    Attributes:
        alert: its id; it stays the same while the pattern comes and goes within a day.
        at_ms: event time it was last written for.
        state: whether the pattern still crashes beyond the usual.
        pattern: the signature, or the name that near-duplicate signatures are read under.
        signatures: the signatures under that name that crashed meanwhile, the most frequent first; at most 16.
        joined: why they are read as one; empty for a single signature.
        places: where it was found beyond the usual, in the order of finding; at most 16.
        opened_ms: when the hour began in which it was found first.
        last_ms: when the last hour ended in which it crashed beyond the usual.
        crashes: of the pattern since it was found, over all machines.
        devices_most: devices in the hour in which most of them crashed.
        tenants_most: tenants in the hour in which most of them were hit.
        expected: crashes an hour that were expected over all machines when it was found.
        log10_evidence: the highest of its places'.
        log10_needed: what that place needed.
        tests: tests made by then: of all alerts ever raised at most `false_share` are false on average.
        false_share: see `tests`.
        times: how often it was opened: 1, and once more each time it came back within a day.
        ended: why it ended: `quiet`, or `usual_now` after a week; empty while it is open.
        sentence: the same for a person.
    """

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    alert: str
    at_ms: int
    state: AlertState
    pattern: str
    signatures: list[str] = []
    joined: str = ""
    places: list[AlertPlace] = []
    opened_ms: int
    last_ms: int
    crashes: int
    devices_most: int
    tenants_most: int
    expected: float
    log10_evidence: float
    log10_needed: float
    tests: int
    false_share: float
    times: int = 1
    ended: str = ""
    sentence: str


class AlertsStatus(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="alerts_status"):
    """How the watch for patterns stands.

    Attributes:
        at_ms: event time up to which it has looked.
        ready: whether it has history enough to raise alerts.
        hours: hours of history.
        rows: past hours of patterns that it can learn from.
        open: alerts that are open.
        tests: tests made so far, of patterns and hours.
        found: discoveries so far, of patterns and hours.
        left_out: patterns beyond the usual that no alert was opened for, because as many are open as may be; and hours
            of patterns that were not looked at because there were too many.
        sentence: the same for a person.
    """

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    at_ms: int
    ready: bool
    hours: int
    rows: int
    open: int
    tests: int
    found: int
    left_out: int
    sentence: str


alert_decoder = msgspec.json.Decoder(Alert | AlertsStatus)


def is_alert_key(key: bytes | None) -> bool:
    """Tell whether a record of the topic is an alert or its tombstone."""
    return key is not None and key.startswith(ID_PREFIX.encode())


def shown(text: str) -> str:
    """Return a name as it may be shown: printable, and cut."""
    return "".join(character if character.isprintable() else "?" for character in text[:TEXT_CHARS_MAX])
