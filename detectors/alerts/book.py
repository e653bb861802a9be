"""The alerts themselves: opened by a find, kept up while the pattern crashes beyond the usual, ended when it is quiet.

Invariants: one alert a name at a time; it is written when it opens, reaches another place, doubles, or ends; at most
256 are open, and ended ones are kept for 30 days and at most 512, the longest ended going first.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from detectors.alerts.names import Names
from detectors.alerts.wire import ENDED_MAX, ID_PREFIX, OPEN_MAX, Alert, AlertPlace, AlertState, shown
from detectors.outliers import PatternScore
from detectors.patterns import PatternHour

HOUR_MS: Final = 3_600_000
ENDED_HOURS: Final = 30 * 24
PLACES_MAX: Final = 16
SIGNATURES_MAX: Final = 16
# Quiet: so many hours in a row with no more crashes than twice the expected, or two.
QUIET_HOURS: Final = 6
QUIET_RATIO: Final = 2.0
QUIET_CRASHES: Final = 2
# By then what crashes is what the past leads to expect.
LASTS_HOURS: Final = 168
# Who comes back so soon is the same alert.
AGAIN_HOURS: Final = 24


class Find(NamedTuple):
    """A pattern's hour that e-LOND lets through, and log10 of the evidence that this took."""

    score: PatternScore
    log10_needed: float


class HourSeen(NamedTuple):
    """What the book needs of one hour.

    Attributes:
        hour: hours since the epoch, after the last one taken.
        whole: each name's crashes over all machines.
        signatures: crashes by signature, of each name.
        finds: of names without an open alert, what e-LOND let through.
        scores: of names with one, how unusual their patterns are.
        tests: tests made by then.
    """

    hour: int
    whole: Mapping[str, PatternHour]
    signatures: Mapping[str, Counter[str]]
    finds: Sequence[Find]
    scores: Sequence[PatternScore]
    tests: int

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return (self.hour + 1) * HOUR_MS


class BookState(msgspec.Struct, kw_only=True):
    """What `AlertBook.snapshot` gives: open alerts by name, ended ones and those written last by id."""

    false_share: float
    open: dict[str, Alert]
    ended: dict[str, Alert]
    written: dict[str, Alert]
    left_out: int


class AlertBook:
    """The alerts that are open, and those that ended lately.

    Attributes:
        left_out: finds for which no alert was opened because as many are open as may be.
    """

    def __init__(self, false_share: float) -> None:
        self.left_out = 0
        self._false_share = false_share
        self._open: dict[str, Alert] = {}
        self._ended: dict[str, Alert] = {}
        self._written: dict[str, Alert] = {}

    @property
    def open_count(self) -> int:
        """How many are open."""
        return len(self._open)

    def is_open(self, name: str) -> bool:
        """Tell whether a name has an open alert."""
        return name in self._open

    def take(self, seen: HourSeen, names: Names) -> list[Alert]:
        """Take an hour; return the alerts to be written, in the order of their ids."""
        for name, alert in list(self._open.items()):
            self._go_on(name, _grown(alert, seen, name), seen.end_ms)
        by_name: dict[str, list[Find]] = {}
        for find in seen.finds:
            by_name.setdefault(find.score.pattern.signature, []).append(find)
        for name, found in by_name.items():
            if len(self._open) >= OPEN_MAX:
                self.left_out += len(found)
            else:
                self._open[name] = self._again(self._opened(name, found, seen, names.note(name)))
        return self._news()

    def _opened(self, name: str, found: Sequence[Find], seen: HourSeen, joined: str) -> Alert:
        whole = seen.whole[name]
        strongest = max(found, key=lambda find: find.score.log10_e - find.log10_needed)
        places = [_place(find.score, find.log10_needed) for find in found[:PLACES_MAX]]
        over_all = [place.expected for place in places if not place.os_build and not place.model]
        return Alert(
            alert=ID_PREFIX + hashlib.blake2b(f"{seen.hour}/{name}".encode(), digest_size=6).hexdigest(),
            at_ms=seen.end_ms,
            state=AlertState.OPEN,
            pattern=shown(name),
            signatures=_top(seen.signatures[name]),
            joined=joined,
            places=places,
            opened_ms=seen.hour * HOUR_MS,
            last_ms=seen.end_ms,
            crashes=whole.crashes,
            devices_most=whole.devices,
            tenants_most=whole.tenants,
            expected=over_all[0] if over_all else sum(place.expected for place in places),
            log10_evidence=strongest.score.log10_e,
            log10_needed=strongest.log10_needed,
            tests=seen.tests,
            false_share=self._false_share,
            sentence="",
        )

    def _again(self, alert: Alert) -> Alert:
        """Return the alert; as the one that ended within a day before, where there is one."""
        since_ms = alert.opened_ms - AGAIN_HOURS * HOUR_MS
        recent = [one for one in self._ended.values() if one.pattern == alert.pattern and one.last_ms >= since_ms]
        if not recent:
            return alert
        before = self._ended.pop(recent[-1].alert)
        return msgspec.structs.replace(
            alert,
            alert=before.alert,
            opened_ms=before.opened_ms,
            times=before.times + 1,
            crashes=before.crashes + alert.crashes,
            devices_most=max(before.devices_most, alert.devices_most),
            tenants_most=max(before.tenants_most, alert.tenants_most),
        )

    def _go_on(self, name: str, alert: Alert, end_ms: int) -> None:
        ended = ""
        if end_ms - alert.last_ms >= QUIET_HOURS * HOUR_MS:
            ended = "quiet"
        elif end_ms - alert.opened_ms >= LASTS_HOURS * HOUR_MS * alert.times:
            ended = "usual_now"
        if not ended:
            self._open[name] = alert
            return
        del self._open[name]
        self._ended[alert.alert] = msgspec.structs.replace(alert, state=AlertState.ENDED, at_ms=end_ms, ended=ended)

    def forget(self, hour: int) -> list[str]:
        """Forget alerts that ended long ago; return their ids, whose records must be deleted from the topic."""
        old = [key for key, one in self._ended.items() if one.at_ms < (hour - ENDED_HOURS) * HOUR_MS]
        over = max(0, len(self._ended) - ENDED_MAX)
        gone = list(dict.fromkeys([*old, *list(self._ended)[:over]]))
        for key in gone:
            del self._ended[key]
            self._written.pop(key, None)
        return gone

    def _news(self) -> list[Alert]:
        """Return what must be written: what is new, ended, moved, or has doubled since it was written."""
        news = []
        for alert in (*self._open.values(), *self._ended.values()):
            before = self._written.get(alert.alert)
            if before is None or _differs(before, alert):
                said = msgspec.structs.replace(alert, sentence=sentence_of(alert))
                self._written[alert.alert] = said
                news.append(said)
        return sorted(news, key=lambda alert: alert.alert)

    def snapshot(self) -> BookState:
        """Return the state; `restore` of it goes on bit for bit."""
        return BookState(
            false_share=self._false_share,
            open=dict(self._open),
            ended=dict(self._ended),
            written=dict(self._written),
            left_out=self.left_out,
        )

    @classmethod
    def restore(cls, state: BookState) -> "AlertBook":
        """Build the book that `state` was taken from."""
        book = cls(state.false_share)
        book._open, book._ended, book._written = dict(state.open), dict(state.ended), dict(state.written)
        book.left_out = state.left_out
        return book


def _grown(alert: Alert, seen: HourSeen, name: str) -> Alert:
    """Return an open alert with one more hour's crashes."""
    whole = seen.whole.get(name)
    if whole is None:
        return alert
    alert = msgspec.structs.replace(alert, crashes=alert.crashes + whole.crashes)
    if whole.crashes <= max(QUIET_CRASHES, QUIET_RATIO * alert.expected):
        return alert
    known = {_key(place) for place in alert.places}
    places = [
        _place(score, alert.log10_needed)
        for score in seen.scores
        if score.pattern.signature == name
        and (shown(score.pattern.os_build), shown(score.pattern.model)) not in known
        and score.log10_e >= alert.log10_needed
    ]
    return msgspec.structs.replace(
        alert,
        at_ms=seen.end_ms,
        last_ms=seen.end_ms,
        devices_most=max(alert.devices_most, whole.devices),
        tenants_most=max(alert.tenants_most, whole.tenants),
        places=[*alert.places, *places][:PLACES_MAX],
        signatures=list(dict.fromkeys([*alert.signatures, *_top(seen.signatures[name])]))[:SIGNATURES_MAX],
    )


def _key(place: AlertPlace) -> tuple[str, str]:
    return place.os_build, place.model


def _place(score: PatternScore, log10_needed: float) -> AlertPlace:
    one = score.pattern
    return AlertPlace(
        shown(one.os_build), shown(one.model), one.crashes, one.devices, score.expected, score.log10_e, log10_needed
    )


def _differs(before: Alert, now: Alert) -> bool:
    return (
        before.state is not now.state
        or before.times != now.times
        or len(before.places) != len(now.places)
        or now.crashes >= 2 * before.crashes
        or now.devices_most >= 2 * before.devices_most
    )


def _top(signatures: Counter[str]) -> list[str]:
    ranked = sorted(signatures.items(), key=lambda item: (-item[1], item[0]))
    return [shown(signature) for signature, _ in ranked[:SIGNATURES_MAX]]


def sentence_of(alert: Alert) -> str:
    """Return an alert as a sentence with its numbers."""
    others = len(alert.signatures) - 1
    like = f" (with {others} {'name' if others == 1 else 'names'} like it)" if others > 0 else ""
    where = [" and ".join(text for text in _key(place) if text) for place in alert.places[:3]]
    since, found_on = _time(alert.opened_ms), ", ".join(one or "all machines" for one in where)
    text = (
        f"{alert.pattern}{like}: {alert.crashes:,} crashes since {since}, on up to {alert.devices_most:,} devices of "
        f"{alert.tenants_most:,} tenants in an hour, where {alert.expected:.2g} crashes were expected. Found on "
        f"{found_on}: evidence 10^{alert.log10_evidence:.1f} >= 10^{alert.log10_needed:.1f} needed after "
        f"{alert.tests:,} tests. It belongs to no rollout under watch."
    )
    if alert.ended:
        why = f"it was quiet for {QUIET_HOURS} hours" if alert.ended == "quiet" else "after a week it is usual now"
        text += f" Ended {_time(alert.at_ms)}: {why}."
    return text


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%MZ}"
