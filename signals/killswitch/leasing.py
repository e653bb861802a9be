"""Leases as the signals stage makes them: what the stage reads is told to the book, what is due is signed.

Between the stage and `lease.py`, so that the stage has four calls and no more. Invariant: a lease is signed in the
same step in which it was found due, behind every event of that step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detectors.verdict import Verdict, verdict_decoder
from ingest.clock import Clock
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, Log, LogUnavailableError, OffsetGoneError, TopicPartition
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.sight import SightSource
from ingest.topics import LIVE_LANE, Topics
from signals.events import Lease, Switch
from signals.killswitch.catchup import CatchUp
from signals.killswitch.event import lease_event
from signals.killswitch.lease import LeaseBook, LeaseTerms
from signals.killswitch.place import StagePlace
from signals.killswitch.signing import Signs


@dataclass(frozen=True, slots=True)
class Granting:
    """What a stage needs to grant leases: on what terms, and whom to ask whether Cordon sees."""

    terms: LeaseTerms
    sight: SightSource


def terms_of(settings: Settings) -> LeaseTerms | None:
    """Return the terms of the lane's leases; None for a lane that is not live.

    A replay drives its own clock, and what it says is obeyed by nobody: a lease by the wall clock would mean nothing.
    """
    if settings.lane != LIVE_LANE:
        return None
    return LeaseTerms(
        seconds=settings.lease_seconds,
        verdict_seconds=settings.lease_verdict_seconds,
        heard_share_least=settings.lease_heard_share_least,
    )


class Leasing:
    """The leases of one keyed partition, as entries of the log."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        partition: int,
        place: StagePlace,
        inputs: Sequence[TopicPartition],
        signer: Signs,
        clock: Clock,
        metrics: Metrics,
        granting: Granting,
        rings: Callable[[str, int], list[str] | None],
    ) -> None:
        """Begin with nothing granted.

        Args:
            log: asked for the ends of the inputs, and for the verdicts from before a restart.
            topics: the lane's names.
            partition: the keyed partition.
            place: how far the stage has read.
            inputs: what the stage reads: all of it must have been read.
            signer: signs leases like events.
            clock: the wall clock.
            metrics: see `LeaseBook`.
            granting: on what terms, and whom to ask whether Cordon sees.
            rings: gives the rings that a rollout declares, by the wall clock; None where they are not known.
        """
        self._log, self._signer, self._clock, self._rings = log, signer, clock, rings
        self._verdicts = TopicPartition(topics.name("verdicts"), partition)
        self._topic = TopicPartition(topics.name("leases"), partition)
        self._book = LeaseBook(topics.lane, granting.terms, granting.sight, clock, metrics)
        within_seconds = granting.terms.renew_ms / 1000
        self._catchup = CatchUp(log, inputs, lambda source: place.next_of(source) or 0, clock, within_seconds)

    def begin(self, offset: int) -> None:
        """Take the verdicts before `offset`, which another process was given: the next ones may be a minute away.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        at = self._log.bounds(self._verdicts)[0]
        while at < offset and (records := self._log.read(self._verdicts, at)):
            for record in records:
                if record.value is not None and record.offset < offset:
                    self._recall(record.value)
            at = records[-1].offset + 1

    def told(self, verdict: Verdict) -> None:
        """Take a verdict."""
        self._book.told(verdict)

    def moved(self, switch: Switch, digest: str) -> None:
        """Take an event."""
        self._book.moved(switch, digest)

    def entries(self) -> list[Entry]:
        """Return the leases that are due, signed, and the records that are taken back."""
        entries = [
            Entry(*self._topic, lease.rollout.encode(), encoder.encode(self._signer.sign(encoder.encode(event))))
            for lease in self._book.due(self._catchup.fresh())
            for event in (lease_event(self._with_rings(lease)),)
        ]
        return entries + [Entry(*self._topic, rollout.encode(), None) for rollout in self._book.forgotten()]

    def _with_rings(self, lease: Lease) -> Lease:
        try:
            lease.rings = self._rings(lease.rollout, self._clock.now_ms())
        except (LogUnavailableError, OffsetGoneError):
            # Whoever steps the stage meets the same and says so; a lease without rings is a lease.
            lease.rings = None
        return lease

    def _recall(self, value: bytes) -> None:
        try:
            self._book.told(verdict_decoder.decode(value))
        except UNREADABLE_ERRORS:
            # It was dead-lettered when it came; here it only means that no lease is granted on it.
            return
