"""The appends without a fence of one log: those of several threads share requests, as the embedded log shares fsyncs.

The first caller leads: it sends its own entries and all that queued up meanwhile, one batch for each partition, one
request for each leader. One such round is under way at a time; that is what keeps the order. Invariants: when an append
has failed, no batch of it can appear after a later append of the same identity in the same partition, because the epoch
is raised first and brokers refuse the older one; what Kafka refuses of one caller, it refuses that caller alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kafka.protocol.producer import InitProducerIdRequest

from ingest.clock import Clock
from ingest.log.group_commit import GroupCommit, Unit
from ingest.log.interface import Entry, LogError, LogUnavailableError
from ingest.log.kafka.produce import IDENTITY_LOST, Identity, Sent, send
from ingest.log.kafka.wire import Deadline, Wire


@dataclass(slots=True, eq=False)
class _Append:
    """One caller's entries.

    Attributes:
        offsets: by place, of those that are in the log.
        error: what the caller gets; None once all are there.
    """

    entries: Sequence[Entry]
    deadline: Deadline
    offsets: dict[int, int] = field(default_factory=dict)
    error: BaseException | None = None

    def missing(self) -> list[int]:
        """Return the places of those that are not known to be in the log."""
        return [place for place in range(len(self.entries)) if place not in self.offsets]


class Producer:
    """The unfenced appends of one log; thread-safe."""

    def __init__(self, wire: Wire, clock: Clock) -> None:
        """Take a wire; nothing is sent before the first append."""
        self._wire = wire
        self._clock = clock
        self._identity: Identity | None = None
        self._spent = False
        self._commits: GroupCommit[list[_Append]] = GroupCommit(self._execute)

    def append(self, entries: Sequence[Entry], deadline: Deadline) -> list[int]:
        """Append the entries and return their offsets.

        Raises:
            LogUnavailableError: some may be there, some not; append them again.
            LogError: Kafka refuses them.
        """
        mine = _Append(entries, deadline)
        size = sum(len(entry.key or b"") + len(entry.value or b"") for entry in entries)
        self._commits.submit(lambda shared: shared.append(mine), size)
        return [mine.offsets[place] for place in range(len(entries))]

    def _execute(self, units: Sequence[Unit[list[_Append]]]) -> None:
        appends: list[_Append] = []
        for unit in units:
            unit.run(appends)
        self._append(appends)
        for unit, append in zip(units, appends, strict=True):
            unit.error = append.error

    def _append(self, appends: Sequence[_Append]) -> None:
        """Append those whose time is not up, within the shortest time that one of them has left."""
        living = [append for append in appends if append.deadline.remaining() > 0]
        for append in appends:
            append.error = LogUnavailableError(
                f"Kafka took {append.deadline.seconds:g} s for the appends before this one: append again"
            )
        if not living:
            return
        deadline = min((append.deadline for append in living), key=Deadline.remaining)
        try:
            with self._wire.held(deadline):
                alone = self._send(living, deadline)
                if len(living) == 1:
                    return
                # In their order, and each in an epoch of its own.
                for append in alone:
                    self._send([append], append.deadline)
        except LogError as error:
            for append in living:
                if append.missing():
                    append.error = error

    def _send(self, appends: Sequence[_Append], deadline: Deadline) -> list[_Append]:
        """Send what is missing, note each caller's outcome, and return those refused that may be tried alone.

        Raises:
            LogError: no producer id was to be had; nothing was sent.
        """
        identity = self._renewed(deadline)
        self._spent = True
        whose = [(append, place) for append in appends for place in append.missing()]
        sent = Sent()
        failure: LogError | None = None
        try:
            entries = [append.entries[place] for append, place in whose]
            send(self._wire, identity, entries, self._clock.now_ms(), deadline, sent)
        except LogError as error:
            failure = error
        for number, offset in sent.offsets.items():
            append, place = whose[number]
            append.offsets[place] = offset
        refused = {id(whose[number][0]): error for number, error in sent.refused.items()}
        doubtful = {id(whose[number][0]) for number in sent.doubtful}
        alone = []
        for append in appends:
            append.error = _outcome(append, refused.get(id(append)), failure)
            if append.error is not None and id(append) not in doubtful and failure is None:
                alone.append(append)
        self._spent = any(append.error is not None for append in appends)
        return alone

    def _renewed(self, deadline: Deadline) -> Identity:
        if self._spent and self._identity is not None:
            # Brokers need not be told: the first batch of the new epoch shuts out the older one.
            self._identity = self._identity.raised()
        if self._identity is None:
            self._identity = _identified(self._wire, deadline)
        self._spent = False
        return self._identity


def _outcome(append: _Append, refused: BaseException | None, failure: LogError | None) -> BaseException | None:
    if not append.missing():
        return None
    if isinstance(refused, IDENTITY_LOST):
        lost = LogUnavailableError(
            f"Kafka has lost track of this producer ({type(refused).__name__}): append again, as a new one"
        )
        lost.__cause__ = refused
        return lost
    # Without either, another caller's entries were refused before all of these were through.
    return refused or failure or LogUnavailableError("the append was interrupted by another one: append again")


def _identified(wire: Wire, deadline: Deadline) -> Identity:
    answer = wire.ask(
        wire.any_node,
        lambda: InitProducerIdRequest(
            transactional_id=None, transaction_timeout_ms=0, producer_id=-1, producer_epoch=-1, max_version=4
        ),
        lambda response: [response.error_code],
        deadline,
    )
    wire.require(answer.error_code)
    return Identity(answer.producer_id, answer.producer_epoch)
