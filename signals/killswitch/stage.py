"""The signals stage: verdicts and commands in, signed and numbered kill-switch events out.

Driven by an `Owner`, one for each keyed partition, so that numbers have one writer under a fence. Per move of a switch
it appends, in one atomic append, the envelope to `killswitch`, the same with the stage's place to `switches`, and after
a command a `SwitchPlace` with what became of it. Invariants: numbers of a rollout are 1, 2, 3 ... without holes and
never given twice, whatever is redelivered and whenever the process dies; and a move is handed over in the same step as
the record that caused it.

Why a replay after a crash is exact: the state holds the offsets of its last event. Every record read after them moved
nothing, given that same standing, so in any order it moves nothing again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detectors.verdict import Verdict, verdict_decoder
from ingest.clock import Clock
from ingest.deadletter import DeadReason, entries_of, letter_of
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, Log, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.events import Command, Switch, SwitchPlace, SwitchRecord, command_decoder, place_decoder, record_decoder
from signals.killswitch.event import cloud_event
from signals.killswitch.machine import CommandResult, Standing, Transition, advance, refusal, standing_after
from signals.killswitch.names import RolloutNames
from signals.killswitch.signing import PublicKeys, Signer
from signals.killswitch.verify import VerifiedEvent, digest_of, open_event, parse_envelope

PLACE_PREFIX = b"@place/"
COMMANDS_REMEMBERED = 512
PLACE_SECONDS = 60


@dataclass(slots=True)
class _Rollout:
    """One rollout under the switch: where it stands and what it is called."""

    standing: Standing
    vendor: str
    product: str
    version: str


class SignalsStage:
    """Moves, numbers and signs the switches of one keyed partition; called from the Owner's thread only."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        partition: int,
        signer: Signer,
        trusted: PublicKeys,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Prepare; `restore` must come before `apply`.

        Args:
            log: read for what this partition's `killswitch` holds beyond its state, and for names of rollouts.
            topics: the lane's names and partition counts.
            partition: the keyed partition this stage owns.
            signer: signs every event.
            trusted: the keys that earlier events may be signed with, the signer's included.
            clock: stamps `decided_ms`.
            metrics: counts events and refused commands.
        """
        self._log = log
        self._topics = topics
        self._partition = partition
        self._signer = signer
        self._trusted = trusted
        self._clock = clock
        self._metrics = metrics
        self._names = RolloutNames(log, TopicPartition(topics.name("rollouts"), 0))
        self._verdicts = TopicPartition(topics.name("verdicts"), partition)
        self._commands = TopicPartition(topics.name("commands"), partition)
        self._killswitch = TopicPartition(topics.name("killswitch"), partition)
        self._switches = TopicPartition(topics.name("switches"), partition)
        self._words = {self._verdicts: "verdicts", self._commands: "commands", self._killswitch: "killswitch"}
        self._rollouts: dict[str, _Rollout] = {}
        self._handled: OrderedDict[str, str] = OrderedDict()
        self._next: dict[TopicPartition, int] = {}
        self._written: dict[TopicPartition, int] = {}
        self._out: list[Entry] = []
        self._place_at_ms = 0

    @property
    def inputs(self) -> Sequence[TopicPartition]:
        """Return the verdicts and commands of this partition, commands first."""
        return (self._commands, self._verdicts)

    def standing(self, rollout: str) -> Standing:
        """Return where a rollout's switch stands."""
        known = self._rollouts.get(rollout)
        return known.standing if known else Standing()

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        """Load the latest event of each rollout, then read `killswitch` from there to its end.

        Raises:
            SwitchError: an event in the log is not signed by a trusted key, or does not follow the one before.
            msgspec.DecodeError: the state topic holds something else.
        """
        for key, value in entries:
            if key.startswith(PLACE_PREFIX):
                place = place_decoder.decode(value)
                self._reach(place.offsets)
                for command_id, result in place.commands:
                    self._remember(command_id, result)
            else:
                record = record_decoder.decode(value)
                self._reach(record.offsets)
                self._follow(open_event(record.envelope, self._trusted))
        self._read_to_end()
        self._written = {source: self._next[source] for source in self.inputs if source in self._next}
        return dict(self._written)

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take verdicts or commands, in order; what can't be read is dead-lettered."""
        for record in records:
            self._next[source] = record.offset + 1
            if record.value is None:
                continue
            try:
                if source == self._commands:
                    self._command(command_decoder.decode(record.value))
                else:
                    self._verdict(verdict_decoder.decode(record.value))
            except UNREADABLE_ERRORS as error:
                self._dead_letter(source, record, str(error))

    def outputs(self) -> Sequence[Entry]:
        """Hand over events, records and places made since the last call."""
        handed, self._out = self._out, []
        return handed

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        """Write the place about once a minute if it moved, so that inputs may age behind it."""
        moved = any(self._written.get(source) != self._next.get(source) for source in self.inputs)
        if not moved or now_ms - self._place_at_ms < PLACE_SECONDS * 1000:
            return []
        self._place_at_ms = now_ms
        # What is appended from here on lies at or behind this end: a restart need not read further back.
        self._next[self._killswitch] = self._log.bounds(self._killswitch)[1]
        return [self._place()]

    def oldest(self) -> Mapping[TopicPartition, int]:
        """Return the offsets of the last record handed over."""
        return {source: self._written[source] for source in self.inputs if source in self._written}

    def _verdict(self, verdict: Verdict) -> None:
        known = self._rollouts.get(verdict.rollout)
        standing = known.standing if known else Standing()
        transition = advance(standing, verdict)
        if transition is None:
            return
        switch = self._switch(verdict.rollout, standing, transition)
        switch.vendor, switch.product, switch.version = verdict.vendor, verdict.product, verdict.version
        switch.reason, switch.sentence = verdict.reason.value, verdict.sentence
        switch.watermark_ms, switch.policy, switch.evidence = verdict.at_ms, verdict.policy, verdict.evidence
        self._emit(switch)

    def _command(self, command: Command) -> None:
        if command.command_id in self._handled:
            return
        result = self._obey(command)
        self._remember(command.command_id, result.value)
        if result is not CommandResult.APPLIED:
            self._metrics.count("commands_refused_total", reason=result.value)
        self._out.append(self._place())

    def _obey(self, command: Command) -> CommandResult:
        known = self._rollouts.get(command.rollout)
        names = (known.vendor, known.product, known.version) if known else self._names.find(command.rollout)
        if names is None:
            return CommandResult.UNKNOWN_ROLLOUT
        standing = known.standing if known else Standing()
        transition = advance(standing, command)
        if transition is None:
            return refusal(standing, command)
        switch = self._switch(command.rollout, standing, transition)
        switch.vendor, switch.product, switch.version = names
        switch.reason, switch.name, switch.command_id = command.reason, command.name, command.command_id
        switch.sentence = f"{command.name} asked for {command.action.value}: {command.reason}"
        self._emit(switch)
        return CommandResult.APPLIED

    def _switch(self, rollout: str, standing: Standing, transition: Transition) -> Switch:
        return Switch(
            rollout=rollout,
            number=standing.number + 1,
            previous_digest=standing.digest,
            lane=self._topics.lane,
            vendor="",
            product="",
            version="",
            state=transition.state,
            previous_state=transition.previous_state,
            decision=transition.decision,
            cause=transition.cause,
            reason="",
            sentence="",
            watermark_ms=0,
            decided_ms=self._clock.now_ms(),
            dry_run=transition.dry_run,
            armed=transition.armed,
        )

    def _emit(self, switch: Switch) -> None:
        payload = encoder.encode(cloud_event(switch))
        envelope = self._signer.sign(payload)
        self._stand(switch, digest_of(payload))
        key = switch.rollout.encode()
        record = SwitchRecord(envelope=envelope, offsets=self._offsets())
        self._out += [
            Entry(*self._killswitch, key, encoder.encode(envelope)),
            Entry(*self._switches, key, encoder.encode(record)),
        ]
        self._metrics.count("killswitch_events_total", decision=switch.decision.value)

    def _stand(self, switch: Switch, digest: str) -> None:
        standing = standing_after(switch, digest)
        self._rollouts[switch.rollout] = _Rollout(standing, switch.vendor, switch.product, switch.version)

    def _dead_letter(self, source: TopicPartition, record: Record, detail: str) -> None:
        letter = letter_of("signals", source, record, DeadReason.UNREADABLE, detail)
        self._out += entries_of([letter], self._topics.name("deadletter"), self._metrics)

    def _place(self) -> Entry:
        place = SwitchPlace(offsets=self._offsets(), commands=list(self._handled.items()))
        return Entry(*self._switches, PLACE_PREFIX + str(self._partition).encode(), encoder.encode(place))

    def _offsets(self) -> dict[str, int]:
        self._written = dict(self._next)
        return {f"{self._words[source]}/{source.partition}": offset for source, offset in self._next.items()}

    def _reach(self, offsets: Mapping[str, int]) -> None:
        for source, word in self._words.items():
            offset = offsets.get(f"{word}/{source.partition}")
            if offset is not None:
                self._next[source] = max(offset, self._next.get(source, 0))

    def _remember(self, command_id: str, result: str) -> None:
        self._handled[command_id] = result
        while len(self._handled) > COMMANDS_REMEMBERED:
            self._handled.popitem(last=False)

    def _follow(self, verified: VerifiedEvent) -> None:
        switch = verified.switch
        if switch.number <= self.standing(switch.rollout).number:
            return
        self._stand(switch, verified.digest)
        if switch.command_id and switch.command_id not in self._handled:
            self._remember(switch.command_id, CommandResult.APPLIED.value)

    def _read_to_end(self) -> None:
        first, end = self._log.bounds(self._killswitch)
        offset = max(first, self._next.get(self._killswitch, first))
        while offset < end:
            records = self._log.read(self._killswitch, offset)
            if not records:
                break
            for record in records:
                if record.value is not None:
                    self._follow(open_event(parse_envelope(record.value), self._trusted))
            offset = records[-1].offset + 1
        self._next[self._killswitch] = max(end, offset)
