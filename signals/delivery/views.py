"""The latest of each rollout in memory: its verdict, its switch, its lease, and what became of commands.

Filled by the tail's thread, read by HTTP handlers. Invariants: bounded, the rollouts that were heard of least recently
go first; and a rollout that is in no topic is in no view, so it is never answered for.
"""

import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from detectors.scope import WHOLE
from detectors.verdict import Verdict, verdict_decoder
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Record, TopicPartition
from ingest.rollouts import Rollout, rollout_decoder
from signals.delivery.joined import Facts, RolloutVerdict, rollout_verdict
from signals.events import Lease, PendingRelease, Switch, place_decoder, record_decoder
from signals.killswitch.effective import standing_stops
from signals.killswitch.place import PLACE_PREFIX
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import open_event, open_lease, parse_envelope

ROLLOUTS_MAX = 50_000
COMMANDS_MAX = 10_000
_LOGGER = logging.getLogger(__name__)
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


class Views:
    """The views of one lane.

    Attributes:
        revision: grows after anything was taken in: whoever shows what stands here looks again when it has.
    """

    def __init__(self, keys: PublicKeys, rollouts_max: int = ROLLOUTS_MAX) -> None:
        """Take the keys that switch records must be signed with, and the bound."""
        self._keys = keys
        self._verdicts: _Latest[Verdict] = _Latest(rollouts_max)
        self._switches: _Latest[Switch] = _Latest(rollouts_max)
        self._rollouts: _Latest[Rollout] = _Latest(rollouts_max)
        self._leases: _Latest[Lease] = _Latest(rollouts_max)
        self._stopped: _Latest[bool] = _Latest(rollouts_max)
        self._commands: _Latest[str] = _Latest(COMMANDS_MAX)
        self._pending: dict[int, list[PendingRelease]] = {}
        self.revision = 0

    def take_verdicts(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the verdicts topic."""
        for record in records:
            self._put(self._verdicts, record, verdict_decoder)
        self.revision += 1

    def take_rollouts(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the rollouts topic."""
        for record in records:
            self._put(self._rollouts, record, rollout_decoder)
        self.revision += 1

    def take_switches(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the switches topic; one that is not signed by a known key is not believed."""
        for record in records:
            if record.value is None or record.key is None:
                continue
            try:
                if record.key.startswith(PLACE_PREFIX):
                    place = place_decoder.decode(record.value)
                    self._pending[source.partition] = place.pending
                    for command_id, result in place.commands:
                        self._commands.put(command_id, result)
                else:
                    self._take_switch(open_event(record_decoder.decode(record.value).envelope, self._keys).switch)
            except (*UNREADABLE_ERRORS, SwitchError) as error:
                _LOGGER.error("a switch record at offset %d is not believed: %s", record.offset, error)
        self.revision += 1

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
        self.revision += 1

    def take_leases(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the leases topic; one that is not signed, or is older than the one held, is not believed."""
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                self._leases.put(record.key.decode(errors="replace"), None)
                continue
            try:
                lease = open_lease(parse_envelope(record.value), self._keys).lease
            except SwitchError as error:
                _LOGGER.error("a lease at offset %d is not believed: %s", record.offset, error)
                continue
            last = self._leases.get(lease.rollout)
            if last is None or lease.issued_ms >= last.issued_ms:
                self._leases.put(lease.rollout, lease)
        self.revision += 1

    def knows(self, rollout: str) -> bool:
        """Tell whether any topic has the rollout."""
        return any(view.get(rollout) is not None for view in (self._rollouts, self._verdicts, self._switches))

    def switch(self, rollout: str) -> Switch | None:
        """Return the data of the rollout's last event."""
        return self._switches.get(rollout)

    def pending(self) -> list[PendingRelease]:
        """Return the releases that wait for a second person, oldest first."""
        return sorted((one for some in dict(self._pending).values() for one in some), key=lambda one: one.at_ms)

    def command(self, command_id: str) -> str | None:
        """Return what became of a command; None while the switch has not seen it."""
        return self._commands.get(command_id)

    def newest(self, most: int) -> list[str]:
        """Return the rollouts whose verdicts came last, newest first."""
        return self._verdicts.newest(most)

    def stopped(self, most: int) -> list[str]:
        """Return the rollouts that are stopped as a whole or in part, those that moved last first."""
        return self._stopped.newest(most)

    def known(self, most: int) -> list[str]:
        """Return the rollouts that any topic has, sorted by id; of more than `most`, those whose verdicts came last."""
        found: dict[str, None] = {}
        for view in (self._verdicts, self._rollouts, self._switches):
            found |= dict.fromkeys(view.newest(most))
        return sorted(itertools.islice(found, most))

    def facts(self, rollout: str) -> Facts | None:
        """Return what is known of a rollout, or None for one that is in no topic."""
        found = Facts(
            rollout=rollout,
            verdict=self._verdicts.get(rollout),
            switch=self._switches.get(rollout),
            declared=self._rollouts.get(rollout),
            lease=self._leases.get(rollout),
        )
        return found if found.named is not None else None

    def verdict(self, rollout: str) -> RolloutVerdict | None:
        """Return the rollout's verdict joined with its switch, leases left aside; None for one that is in no topic."""
        facts = self.facts(rollout)
        return rollout_verdict(facts, WHOLE, 0, None) if facts is not None else None

    def _take_switch(self, switch: Switch) -> None:
        last = self._switches.get(switch.rollout)
        if last is None or switch.number >= last.number:
            self._switches.put(switch.rollout, switch)
            self._stopped.put(switch.rollout, True if any(standing_stops(switch)) else None)

    def _put(self, view: "_Latest[_Value]", record: Record, decoder: "msgspec.json.Decoder[_Value]") -> None:
        if record.key is None:
            return
        try:
            view.put(record.key.decode(), decoder.decode(record.value) if record.value is not None else None)
        except UNREADABLE_ERRORS:
            # The topic's owner dead-letters what it can't read; the view keeps what it had.
            return
