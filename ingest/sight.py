"""Whether Cordon sees: judged from the words that the owners of all shares of the work say of themselves.

Behind `cordon.progress.v1`, in front of whoever must not go on blindly: detection, which then calls nothing healthy,
and the renewal of leases, which then stops. The invariant: what is not heard is not seen. A share counts as seen only
by a word that came while we listened, and only for `blind_seconds`; no word ever means that all is well.
"""

import enum
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from ingest.clock import Clock
from ingest.metrics import Metrics
from ingest.progress import OwnerWord
from ingest.topics import LIVE_LANE, Topics

# Stages whose input never rests in the live lane, since gateways tick into it: old means blind.
_AGED_STAGES = ("grouping", "detection")
# The mark that ends a transaction counts as an unread offset until the owner has looked behind it, every 5 s.
STALL_SECONDS_LEAST = 12.0
LISTED_MAX = 50


class Cause(enum.StrEnum):
    """Why a share of the work is not seen; a closed set, used alike on the wire and in verdicts."""

    UNHEARD = "unheard"  # nothing was heard since we began to listen, which is not long ago
    MISSING = "missing"  # nobody owns it
    SILENT = "silent"  # its owner was not heard for too long
    STALLED = "stalled"  # it stands still beside unread records
    BEHIND = "behind"  # it has too many records unread
    OLD = "old"  # the newest record it has read is too old: it lags, or no gateway ticks
    FAILED = "failed"  # the stage itself has ended


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """One share that is not seen.

    Attributes:
        share: its name, that of its fence.
        cause: why, as a closed word.
        detail: why, for people, with the numbers and what to do.
    """

    share: str
    cause: Cause
    detail: str


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """Whether Cordon sees.

    Attributes:
        seeing: every share is heard, keeps up, and reads what is new. False: renew no lease, say nothing is healthy.
        why: what is not seen, at most `LISTED_MAX` of them; empty while seeing.
        unseen: how many shares are not seen.
        at_ms: when it was judged, by the judging process's wall clock.
    """

    seeing: bool
    why: list[Unseen] = []
    unseen: int = 0
    at_ms: int = 0


class SightSource(Protocol):
    """Whom to ask; a lease is renewed only on an answer of now."""

    def sight(self) -> Sight:
        """Return whether Cordon sees now."""
        ...


@dataclass(frozen=True, slots=True)
class SightLimits:
    """When a share counts as unseen.

    Attributes:
        blind_seconds: how long an owner may be unheard, and how old the newest record read may be.
        lag_records_max: records an owner may not have read.
        aged: whether the age of records is judged; not in a driven lane, whose clock may rest.
    """

    blind_seconds: float
    lag_records_max: int
    aged: bool


@dataclass(slots=True)
class _Share:
    """What was heard of one share; times are of the judge's own timer."""

    word: OwnerWord | None = None
    heard_at: float | None = None
    moved_at: float = 0.0


def shares_of(topics: Topics) -> list[str]:
    """Return the names of all shares of the work that must be owned for Cordon to see."""
    return [
        *(f"grouping/{number}" for number in range(topics.device_partitions)),
        *(f"{stage}/{number}" for stage in ("detection", "signals") for number in range(topics.keyed_partitions)),
    ]


def limits_of(blind_seconds: float, lag_records_max: int, lane: str) -> SightLimits:
    """Return the limits for a lane."""
    return SightLimits(blind_seconds, lag_records_max, aged=lane == LIVE_LANE)


class Watch:
    """Judges the shares by their words; any thread.

    Ages are taken between the log's clock and ours; silence only by our own timer, from word to word.
    """

    def __init__(
        self,
        shares: Sequence[str],
        limits: SightLimits,
        metrics: Metrics,
        clock: Clock,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin having heard nothing.

        Args:
            shares: who must be heard.
            limits: what is too long, too many, too old.
            metrics: gets silence, lag and age of each share.
            clock: the wall clock, for the age of records.
            timer: seconds, for silence.
        """
        self._shares = {name: _Share() for name in shares}
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._timer = timer
        self._began = timer()
        self._lock = threading.Lock()

    def heard(self, word: OwnerWord, fresh: bool) -> None:
        """Take a word.

        Args:
            word: of any share; those that need not be heard are ignored, and so are stale owners.
            fresh: False for one that lay in the log before we listened: it proves that nobody lives.
        """
        with self._lock:
            share = self._shares.get(word.owner)
            if share is None or (share.word is not None and word.generation < share.word.generation):
                return
            now, before = self._timer(), share.word
            moved = before is None or before.generation != word.generation or before.positions != word.positions
            if moved or (not word.lag_records and word.newest_ms):
                share.moved_at = now
            share.word = word
            if fresh and not word.leaving:
                share.heard_at = now

    def sight(self) -> Sight:
        """Return whether Cordon sees now."""
        with self._lock:
            found = [unseen for name, share in self._shares.items() if (unseen := self._judge(name, share)) is not None]
        return Sight(seeing=not found, why=found[:LISTED_MAX], unseen=len(found), at_ms=self._clock.now_ms())

    def doubts(self) -> list[str]:
        """Return the shares that are not seen with their causes, for verdicts: no numbers, so it changes rarely.

        Whoever has just begun to listen has heard of nobody, which is no reason yet to take a verdict back.
        """
        return [f"{one.share} {one.cause}" for one in self.sight().why if one.cause is not Cause.UNHEARD]

    def expose(self) -> None:
        """Set the metrics."""
        now, now_ms = self._timer(), self._clock.now_ms()
        missing: dict[str, int] = {}
        with self._lock:
            for name, share in self._shares.items():
                stage = name.partition("/")[0]
                ownerless = share.word is None or share.word.leaving
                missing[stage] = missing.get(stage, 0) + ownerless
                since = self._began if share.heard_at is None else share.heard_at
                self._metrics.set("owner_silent_seconds", now - since, owner=name)
                if share.word is not None:
                    self._metrics.set("lag_records", share.word.lag_records, owner=name)
                    if share.word.newest_ms:
                        age_seconds = max(0, now_ms - share.word.newest_ms) / 1000
                        self._metrics.set("newest_age_seconds", age_seconds, owner=name)
        for stage, count in missing.items():
            self._metrics.set("owners_missing", count, stage=stage)

    def _judge(self, name: str, share: _Share) -> Unseen | None:
        silent = self._timer() - (self._began if share.heard_at is None else share.heard_at)
        too_long = silent > self._limits.blind_seconds
        word = share.word
        if share.heard_at is None and not too_long:
            return Unseen(share=name, cause=Cause.UNHEARD, detail="not heard from yet, since we have just begun")
        if too_long and (word is None or word.leaving or share.heard_at is None):
            return Unseen(share=name, cause=Cause.MISSING, detail=f"nobody owns it: {_remedy(name)}")
        assert word is not None
        if too_long:
            detail = f"{word.worker} was last heard {silent:.0f} s ago: is it alive, and does it reach Kafka?"
            return Unseen(share=name, cause=Cause.SILENT, detail=detail)
        return None if word.leaving else self._judge_word(word, share.moved_at)

    def _judge_word(self, word: OwnerWord, moved_at: float) -> Unseen | None:
        limits, name = self._limits, word.owner
        still = self._timer() - moved_at
        if word.lag_records and still > max(limits.blind_seconds, STALL_SECONDS_LEAST):
            detail = f"{word.worker} stands still for {still:.0f} s beside {word.lag_records} unread records"
            return Unseen(share=name, cause=Cause.STALLED, detail=detail)
        if word.lag_records > limits.lag_records_max:
            detail = f"{word.worker} has {word.lag_records} records unread, over {limits.lag_records_max}: add workers"
            return Unseen(share=name, cause=Cause.BEHIND, detail=detail)
        if limits.aged and name.partition("/")[0] in _AGED_STAGES:
            # An owner that has just begun has read nothing yet, which is no blindness until it lasts.
            age_seconds = (self._clock.now_ms() - word.newest_ms) / 1000 if word.newest_ms else still
            if age_seconds > limits.blind_seconds:
                told = f"{age_seconds:.0f} s old" if word.newest_ms else "not there yet"
                detail = f"the newest record {word.worker} has read is {told}: do gateways tick, and does it keep up?"
                return Unseen(share=name, cause=Cause.OLD, detail=detail)
        return None


def _remedy(share: str) -> str:
    stage = share.partition("/")[0]
    return "start `cordon signals`" if stage == "signals" else f"start a `cordon worker` with the role {stage}"
