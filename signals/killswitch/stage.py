"""The signals stage: verdicts, commands and the time in; signed and numbered kill-switch events out.

Driven by an `Owner`, one for each keyed partition, so that numbers have one writer under a fence. Per move of a switch
it appends, in one atomic append, the envelope to `killswitch`, the same with the stage's place to `switches`, and the
entry of the audit trail; and after a command a `SwitchPlace` with what became of it. Invariants: numbers of a rollout
are 1, 2, 3 ... without holes and never given twice, whatever is redelivered and whenever the process dies; and a move
is handed over in the same step as the record that caused it.

Why a replay after a crash is exact: the state holds the offsets of its last event. Every record read after them moved
nothing, given that same standing, so in any order it moves nothing again. An end that has come moves the switch by an
event, and the standing after that event has no such end.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from detectors.verdict import Verdict, verdict_decoder
from ingest.clock import Clock
from ingest.deadletter import DeadReason, entries_of, letter_of
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, Log, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.events import (
    Action,
    AuditEntry,
    Command,
    PendingRelease,
    Switch,
    SwitchRecord,
    command_decoder,
    place_decoder,
    record_decoder,
)
from signals.killswitch.approvals import Approvals
from signals.killswitch.audit import AuditAction, AuditTrail
from signals.killswitch.book import Names, RolloutBook
from signals.killswitch.event import cloud_event
from signals.killswitch.leasing import Granting, Leasing
from signals.killswitch.machine import Transition, by_detector, by_time
from signals.killswitch.people import Rules, ruling
from signals.killswitch.place import PLACE_PREFIX, StagePlace
from signals.killswitch.results import CommandResult
from signals.killswitch.said import LatestVerdicts
from signals.killswitch.signing import PublicKeys, Signs
from signals.killswitch.standing import PARTS_MAX, Standing
from signals.killswitch.verify import VerifiedEvent, digest_of, open_event, parse_envelope
from signals.killswitch.wording import by_command, by_end, by_verdict, switch_of

PLACE_SECONDS = 60
# A verdict stops and lifts each part at most once, and the whole a few times.
MOVES_MAX = 4 * PARTS_MAX
DEFAULT_RULES = Rules()
_LISTENS_AGAIN = frozenset({Action.ARM, Action.DRY_RUN})

logger = logging.getLogger(__name__)


class SignalsStage:
    """Moves, numbers and signs the switches of one keyed partition; called from the Owner's thread only."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        partition: int,
        signer: Signs,
        trusted: PublicKeys,
        clock: Clock,
        metrics: Metrics,
        rules: Rules = DEFAULT_RULES,
        *,
        granting: Granting | None = None,
        key_changes: Callable[[], Sequence[str]] = list,
    ) -> None:
        """Prepare; `restore` must come before `apply`.

        Args:
            log: read for what this partition's `killswitch` and `audit` hold beyond its state, for names of rollouts,
                and for the verdict that binds again when a mute or hold ends.
            topics: the lane's names and partition counts.
            partition: the keyed partition this stage owns.
            signer: signs every event.
            trusted: the keys that earlier events may be signed with, the signer's included.
            clock: stamps `decided_ms`, and says when holds, mutes, dry runs and requests end.
            metrics: counts events, refused commands and broken glass.
            rules: who needs a second person, and how long a mute may last.
            granting: on what terms leases are granted; None grants none.
            key_changes: hands over what became of the signing keys, a sentence each, for the audit trail.
        """
        self._log, self._lane, self._topics = log, topics.lane, topics
        self._signer, self._trusted = signer, trusted
        self._clock, self._metrics, self._rules = clock, metrics, rules
        self._verdicts = TopicPartition(topics.name("verdicts"), partition)
        self._commands = TopicPartition(topics.name("commands"), partition)
        self._killswitch = TopicPartition(topics.name("killswitch"), partition)
        self._switches = TopicPartition(topics.name("switches"), partition)
        words = {self._verdicts: "verdicts", self._commands: "commands", self._killswitch: "killswitch"}
        self._place = StagePlace(words, self._switches)
        self._book = RolloutBook(log, TopicPartition(topics.name("rollouts"), 0))
        self._said = LatestVerdicts(log, self._verdicts)
        self._approvals = Approvals()
        self._audit = AuditTrail(TopicPartition(topics.name("audit"), partition))
        self._key_changes = key_changes
        self._leasing: Leasing | None = None
        if granting is not None:
            self._leasing = Leasing(
                log, topics, partition, self._place, self.inputs, signer, clock, metrics, granting, self._book.rings
            )
        self._out: list[Entry] = []
        self._place_at_ms = 0

    @property
    def inputs(self) -> Sequence[TopicPartition]:
        """Return the verdicts and commands of this partition, commands first."""
        return (self._commands, self._verdicts)

    def standing(self, rollout: str) -> Standing:
        """Return where a rollout's switch stands."""
        return self._book.standing(rollout)

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        """Load the latest event of each rollout, then read `killswitch` and `audit` from there to their ends.

        Raises:
            SwitchError: an event in the log is not signed by a trusted key, or does not follow the one before.
            msgspec.DecodeError: the state topic holds something else.
        """
        self._out.clear()
        self._audit.load((0, ""), 0)
        for key, value in entries:
            if key.startswith(PLACE_PREFIX):
                place = place_decoder.decode(value)
                self._place.load(place)
                self._approvals.load(place.pending)
                word = f"audit/{self._audit.source.partition}"
                self._audit.load(place.audit, place.offsets.get(word, 0))
            else:
                record = record_decoder.decode(value)
                self._place.reach(record.offsets)
                self._follow(open_event(record.envelope, self._trusted))
        self._read_to_end()
        restored = {source: at for source in self.inputs if (at := self._place.next_of(source)) is not None}
        self._place.written = dict(restored)
        self._said.begin(restored.get(self._verdicts, 0))
        if self._leasing is not None:
            self._leasing.begin(restored.get(self._verdicts, 0))
        return restored

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take verdicts or commands, in order; what can't be read is dead-lettered."""
        for record in records:
            self._place.move(source, record.offset + 1)
            if record.value is None:
                continue
            try:
                if source == self._commands:
                    self._command(command_decoder.decode(record.value))
                else:
                    verdict = verdict_decoder.decode(record.value)
                    self._said.note(verdict.rollout, record.offset)
                    self._verdict(verdict)
                    if self._leasing is not None:
                        self._leasing.told(verdict)
            except UNREADABLE_ERRORS as error:
                self._dead_letter(source, record, str(error))

    def outputs(self) -> Sequence[Entry]:
        """Let end what has ended, and hand over events, records and places made since the last call."""
        now_ms = self._clock.now_ms()
        while (rollout := self._book.timers.due(now_ms)) is not None:
            self._ended(rollout, now_ms)
        self._requests_gone(self._approvals.expired(now_ms), AuditAction.REQUEST_ENDED)
        self._out += [self._audit.keys_changed(sentence, now_ms) for sentence in self._key_changes()]
        if self._leasing is not None:
            self._out += self._leasing.entries()
        handed, self._out = self._out, []
        return handed

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        """Write the place about once a minute if it moved, so that inputs may age behind it."""
        if not self._place.moved(self.inputs) or now_ms - self._place_at_ms < PLACE_SECONDS * 1000:
            return []
        self._place_at_ms = now_ms
        # What is appended from here on lies at or behind these ends: a restart need not read further back.
        self._place.move(self._killswitch, self._log.bounds(self._killswitch)[1])
        self._audit.offset = self._log.bounds(self._audit.source)[1]
        return [self._place_entry()]

    def oldest(self) -> Mapping[TopicPartition, int]:
        """Return the offsets of the last record handed over."""
        written = self._place.written
        return {source: written[source] for source in self.inputs if source in written}

    def _verdict(self, verdict: Verdict) -> None:
        names = (verdict.vendor, verdict.product, verdict.version)
        for _ in range(MOVES_MAX):
            standing = self.standing(verdict.rollout)
            transition = by_detector(standing, verdict)
            if transition is None:
                return
            self._emit(by_verdict(self._switch(verdict.rollout, standing, transition, names), verdict, transition))

    def _ended(self, rollout: str, now_ms: int) -> None:
        """Let one end come, and then let the detector's latest word bind where it does again."""
        verdict, standing, names = self._said.find(rollout), self.standing(rollout), self._book.names(rollout)
        transition = by_time(standing, now_ms, verdict)
        if transition is None or names is None:
            self._book.timers.set(rollout, 0)
            return
        self._emit(by_end(self._switch(rollout, standing, transition, names), transition))
        if verdict is not None:
            self._verdict(verdict)

    def _command(self, command: Command) -> None:
        if self._place.handled(command.command_id):
            return
        result = self._obey(command)
        self._place.remember(command.command_id, result.value)
        if result is not CommandResult.APPLIED:
            self._out.append(self._audit.refused(command, result, self._clock.now_ms()))
            if result is not CommandResult.PENDING:
                self._metrics.count("commands_refused_total", reason=result.value)
        self._out.append(self._place_entry())

    def _obey(self, command: Command) -> CommandResult:
        names = self._book.names(command.rollout)
        if names is None:
            return CommandResult.UNKNOWN_ROLLOUT
        standing = self.standing(command.rollout)
        ruled = ruling(command, standing, self._approvals, self._rules, self._clock.now_ms())
        if ruled.transition is None:
            if ruled.request is not None:
                self._approvals.add(ruled.request)
            return ruled.result
        # Read before anything moves: a log that can't be read now gives the same command again.
        verdict = self._said.find(command.rollout) if command.action in _LISTENS_AGAIN else None
        if ruled.request is not None:
            self._approvals.take(ruled.request)
            self._place.remember(ruled.request.command_id, CommandResult.APPLIED.value)
        switch = by_command(self._switch(command.rollout, standing, ruled.transition, names), command, ruled)
        if switch.break_glass:
            self._metrics.count("break_glass_total")
            logger.error("GLASS BROKEN on %s: %s", switch.rollout, switch.sentence)
        self._emit(switch)
        if verdict is not None:
            self._verdict(verdict)
        return ruled.result

    def _switch(self, rollout: str, standing: Standing, transition: Transition, names: Names) -> Switch:
        return switch_of(rollout, standing, transition, names, self._lane, self._clock.now_ms())

    def _emit(self, switch: Switch) -> None:
        payload = encoder.encode(cloud_event(switch))
        envelope, digest, key = self._signer.sign(payload), digest_of(payload), switch.rollout.encode()
        gone = self._stand(switch, digest)
        record = SwitchRecord(envelope=envelope, offsets=self._place.offsets())
        self._out += [
            Entry(*self._killswitch, key, encoder.encode(envelope)),
            Entry(*self._switches, key, encoder.encode(record)),
            self._audit.event(switch, digest, self._clock.now_ms()),
        ]
        self._metrics.count("killswitch_events_total", decision=switch.decision.value)
        self._requests_gone(gone, AuditAction.REQUEST_VOID)

    def _stand(self, switch: Switch, digest: str) -> list[PendingRelease]:
        self._book.moved(switch, digest)
        if self._leasing is not None:
            self._leasing.moved(switch, digest)
        return self._approvals.void(switch)

    def _requests_gone(self, gone: Sequence[PendingRelease], action: AuditAction) -> None:
        for request in gone:
            self._place.remember(request.command_id, CommandResult.NO_SUCH_REQUEST.value)
            self._out.append(self._audit.request_gone(request, action, self._clock.now_ms()))
        if gone:
            self._out.append(self._place_entry())

    def _dead_letter(self, source: TopicPartition, record: Record, detail: str) -> None:
        letter = letter_of("signals", source, record, DeadReason.UNREADABLE, detail)
        self._out += entries_of([letter], self._topics.name("deadletter"), self._metrics)

    def _place_entry(self) -> Entry:
        self._metrics.set("approvals_pending", len(self._approvals.pending), partition=str(self._switches.partition))
        return self._place.entry(self._approvals.pending, (self._audit.number, self._audit.digest), self._audit.offset)

    def _follow(self, verified: VerifiedEvent) -> None:
        switch = verified.switch
        if switch.number <= self.standing(switch.rollout).number:
            return
        self._stand(switch, verified.digest)
        if switch.command_id and not self._place.handled(switch.command_id):
            self._place.remember(switch.command_id, CommandResult.APPLIED.value)

    def _read_to_end(self) -> None:
        """Read events and entries that the state does not know of; an event without its entry is given one."""
        began = self._audit.number > 0 or self._log.bounds(self._audit.source)[1] > 0
        entered: set[str] = set()

        def told(entry: AuditEntry) -> None:
            entered.add(entry.event_id)

        self._audit.read_to_end(self._log, told)
        first, end = self._log.bounds(self._killswitch)
        # Where there is no trail yet, an earlier release wrote these events: the trail begins with them.
        offset = max(first, self._place.next_of(self._killswitch) or first) if began else first
        while offset < end and (records := self._log.read(self._killswitch, offset)):
            for record in records:
                if record.value is not None:
                    verified = open_event(parse_envelope(record.value), self._trusted)
                    self._follow(verified)
                    if verified.event.id not in entered:
                        entered.add(verified.event.id)
                        self._out.append(self._audit.event(verified.switch, verified.digest, self._clock.now_ms()))
            offset = records[-1].offset + 1
        self._place.move(self._killswitch, max(end, offset))
