"""The latest of each rollout in memory: its verdict, its switch, and what became of commands.

Filled by the tail's thread, read by HTTP handlers. Invariants: bounded, the rollouts that were heard of least recently
go first; and a rollout that is in no topic is in no view, so it is never answered for.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from detectors.verdict import DecisionWord, Evidence, Verdict, VerdictWord, verdict_decoder
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Record, TopicPartition
from ingest.rollouts import Rollout, rollout_decoder
from signals.events import Switch, SwitchState, place_decoder, record_decoder
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.stage import PLACE_PREFIX
from signals.killswitch.verify import open_event, parse_envelope

ROLLOUTS_MAX = 50_000
COMMANDS_MAX = 10_000
_LOGGER = logging.getLogger(__name__)
_STOPS = frozenset({SwitchState.HELD, SwitchState.KILLED})
_Value = TypeVar("_Value")


class _Latest(Generic[_Value]):
    """The last values by name, bounded; written by one thread, read by any."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, name: str, value: _Value | None) -> None:
        with self._lock:
            self._values.pop(name, None)
            if value is not None:
                self._values[name] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def get(self, name: str) -> _Value | None:
        with self._lock:
            return self._values.get(name)

    def newest(self, most: int) -> list[str]:
        with self._lock:
            return [name for name, _ in zip(reversed(self._values), range(most), strict=False)]


class RolloutVerdict(msgspec.Struct, kw_only=True):
    """What `GET /v1/rollouts/{id}/verdict` answers: the statistics' word and the switch's, side by side.

    Attributes:
        decision: what a rollout system must do: the switch's word where it holds, killed or was released, else the
            verdict's.
        state: where the switch stands.
        reason: of the verdict, or `no_verdict` where none was given yet.
        at_ms: event time the verdict holds for; 0 where there is none.
        killed: a live kill stands.
        held: a live hold stands.
        verdict_decision: what policy makes of the verdict, whatever people decided.
        number: of the switch's last event; 0 before the first.
    """

    rollout: str
    vendor: str
    product: str
    version: str
    verdict: VerdictWord
    decision: DecisionWord
    state: SwitchState
    reason: str
    sentence: str
    at_ms: int
    killed: bool
    held: bool
    dry_run: bool
    verdict_decision: DecisionWord
    number: int
    decided_by: str
    decided_reason: str
    evidence: Evidence | None


class Views:
    """The views of one lane."""

    def __init__(self, keys: PublicKeys, rollouts_max: int = ROLLOUTS_MAX) -> None:
        """Take the keys that switch records must be signed with, and the bound."""
        self._keys = keys
        self._verdicts: _Latest[Verdict] = _Latest(rollouts_max)
        self._switches: _Latest[Switch] = _Latest(rollouts_max)
        self._rollouts: _Latest[Rollout] = _Latest(rollouts_max)
        self._commands: _Latest[str] = _Latest(COMMANDS_MAX)

    def take_verdicts(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the verdicts topic."""
        for record in records:
            self._put(self._verdicts, record, verdict_decoder)

    def take_rollouts(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the rollouts topic."""
        for record in records:
            self._put(self._rollouts, record, rollout_decoder)

    def take_switches(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the switches topic; one that is not signed by a known key is not believed."""
        for record in records:
            if record.value is None or record.key is None:
                continue
            try:
                if record.key.startswith(PLACE_PREFIX):
                    for command_id, result in place_decoder.decode(record.value).commands:
                        self._commands.put(command_id, result)
                else:
                    self._take_switch(open_event(record_decoder.decode(record.value).envelope, self._keys).switch)
            except (*UNREADABLE_ERRORS, SwitchError) as error:
                _LOGGER.error("a switch record at offset %d is not believed: %s", record.offset, error)

    def take_events(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the kill-switch topic: whoever was sent an event must not be shown an older switch.

        An event and its switch record are read apart, and the stream is served from the first.
        """
        for record in records:
            if record.value is None:
                continue
            try:
                self._take_switch(open_event(parse_envelope(record.value), self._keys).switch)
            except SwitchError as error:
                _LOGGER.error("a kill-switch event at offset %d is not believed: %s", record.offset, error)

    def knows(self, rollout: str) -> bool:
        """Tell whether any topic has the rollout."""
        return any(view.get(rollout) is not None for view in (self._rollouts, self._verdicts, self._switches))

    def switch(self, rollout: str) -> Switch | None:
        """Return the data of the rollout's last event."""
        return self._switches.get(rollout)

    def command(self, command_id: str) -> str | None:
        """Return what became of a command; None while the switch has not seen it."""
        return self._commands.get(command_id)

    def newest(self, most: int) -> list[RolloutVerdict]:
        """Return the rollouts whose verdicts came last, newest first."""
        joined = [self.verdict(rollout) for rollout in self._verdicts.newest(most)]
        return [item for item in joined if item is not None]

    def verdict(self, rollout: str) -> RolloutVerdict | None:
        """Return the rollout's verdict joined with its switch, or None for a rollout that is in no topic."""
        verdict, switch, declared = (
            self._verdicts.get(rollout),
            self._switches.get(rollout),
            self._rollouts.get(rollout),
        )
        named = verdict or switch or declared
        if named is None:
            return None
        live = switch is not None and not switch.dry_run
        rules = switch is not None and live and switch.state in {*_STOPS, SwitchState.RELEASED}
        said = verdict.decision if verdict else DecisionWord.UNKNOWN
        return RolloutVerdict(
            rollout=rollout,
            vendor=named.vendor,
            product=named.product,
            version=named.version,
            verdict=verdict.verdict if verdict else VerdictWord.NO_DATA,
            decision=switch.decision if switch is not None and rules else said,
            state=switch.state if switch else SwitchState.OBSERVING,
            reason=verdict.reason.value if verdict else "no_verdict",
            sentence=verdict.sentence if verdict else "no verdict was given on this rollout yet: no data is not health",
            at_ms=verdict.at_ms if verdict else 0,
            killed=live and switch is not None and switch.state is SwitchState.KILLED,
            held=live and switch is not None and switch.state is SwitchState.HELD,
            dry_run=(switch.dry_run if switch else False) or (verdict.dry_run if verdict else False),
            verdict_decision=said,
            number=switch.number if switch else 0,
            decided_by=(switch.name or switch.cause) if switch else "",
            decided_reason=switch.sentence if switch else "",
            evidence=verdict.evidence if verdict else None,
        )

    def _take_switch(self, switch: Switch) -> None:
        last = self._switches.get(switch.rollout)
        if last is None or switch.number >= last.number:
            self._switches.put(switch.rollout, switch)

    def _put(self, view: "_Latest[_Value]", record: Record, decoder: "msgspec.json.Decoder[_Value]") -> None:
        if record.key is None:
            return
        try:
            view.put(record.key.decode(), decoder.decode(record.value) if record.value is not None else None)
        except UNREADABLE_ERRORS:
            # The topic's owner dead-letters what it can't read; the view keeps what it had.
            return
