"""How far the stages on other machines have come, for a replay that drives the gateway's clock.

Reads the owners' words (`follower`). The invariant: `reached(t)` returns only when every record received before t has
been through detection, and every verdict that came of it through signals; nothing is taken from clocks.
"""

import asyncio
import time
from collections.abc import Mapping

from deploy.distributed.follower import ProgressFollower
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import Log, LogError, LogUnavailableError, TopicPartition
from ingest.outcome import Refusal
from ingest.progress import OwnerWord, place_name
from ingest.topics import Topics

WAIT_SECONDS_MAX = 600.0
RETRY_AFTER_SECONDS = 10
AWAY_RETRY_SECONDS = 2
_STEP_SECONDS = 1.0


class LogProgress:
    """Waits for detection and signals; the gateway's `Progress` on many machines."""

    def __init__(self, log: Log, topics: Topics, follower: ProgressFollower) -> None:
        """Prepare; register before the follower starts.

        Args:
            log: where verdicts and kill-switch events lie.
            topics: the lane's.
            follower: of that lane; not started yet.
        """
        self._log = log
        self._follower = follower
        count = topics.keyed_partitions
        self._detection = [f"detection/{number}" for number in range(count)]
        self._verdicts = [TopicPartition(topics.name("verdicts"), number) for number in range(count)]
        self._killswitch = {TopicPartition(topics.name("killswitch"), number): 0 for number in range(count)}
        self._events = 0
        # What detection has ever said of each verdict partition: a new owner's word knows only its own.
        self._said: dict[str, int] = {}
        self._generations: dict[str, int] = {}
        # Verdict partitions in which an owner that died may have said something no word tells of.
        self._unsure: set[int] = set()
        self._reached_ms = 0
        follower.listen(self._heard)

    @property
    def reached_ms(self) -> int:
        """Everything received before this time has been through to the kill switch."""
        return self._reached_ms

    async def reached(self, at_ms: int) -> None:
        """Return once everything received before `at_ms` has been through to the kill switch.

        Raises:
            RequestRefusedError: ten minutes were not enough; the detail names who is lacking.
        """
        if self._reached_ms >= at_ms:
            return
        if not await asyncio.to_thread(self._wait, at_ms):
            detail = f"the stages did not reach {at_ms} ms: {self._lacking(at_ms)}"
            raise RequestRefusedError(Refusal.DRAINING, detail, RETRY_AFTER_SECONDS)
        self._reached_ms = max(self._reached_ms, at_ms)

    def killswitch_events(self) -> int:
        """Return how many kill-switch events this lane's log holds.

        Counted by reading them, each once: offsets count the marks of transactions too.

        Raises:
            RequestRefusedError: Kafka is away; ask again.
        """
        try:
            for source in self._killswitch:
                self._count(source)
        except LogUnavailableError as error:
            detail = f"kill-switch events can't be counted now: {error}"
            raise RequestRefusedError(Refusal.LOG_UNAVAILABLE, detail, AWAY_RETRY_SECONDS) from error
        return self._events

    def _count(self, source: TopicPartition) -> None:
        first, end = self._log.bounds(source)
        self._killswitch[source] = max(first, self._killswitch[source])
        while self._killswitch[source] < end and (records := self._log.read(source, self._killswitch[source])):
            # Together: a read that fails must not have the ones before it counted again.
            self._events += len(records)
            self._killswitch[source] = records[-1].offset + 1

    def _heard(self, word: OwnerWord, _fresh: bool) -> None:
        if word.owner not in self._detection:
            return
        if self._generations.get(word.owner) != word.generation:
            self._generations[word.owner] = word.generation
            self._unsure.update(range(len(self._verdicts)))
        for place, offset in word.said.items():
            self._said[place] = max(offset, self._said.get(place, 0))

    def _wait(self, at_ms: int) -> bool:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while (remaining := deadline - time.monotonic()) > 0:
            if not self._follower.wait_for(lambda words: self._through(words, at_ms), min(remaining, _STEP_SECONDS)):
                continue
            if self._nothing_left():
                return True
            time.sleep(0.05)
        return False

    def _through(self, words: Mapping[str, OwnerWord], at_ms: int) -> bool:
        if any(name not in words or words[name].reached_ms < at_ms for name in self._detection):
            return False
        return all(self._has_read(words, number) for number in range(len(self._verdicts)))

    def _has_read(self, words: Mapping[str, OwnerWord], number: int) -> bool:
        place = place_name(*self._verdicts[number])
        word = words.get(f"signals/{number}")
        return word is not None and word.positions.get(place, 0) >= self._said.get(place, 0)

    def _nothing_left(self) -> bool:
        """Look whether signals have read the verdicts of owners that died before they could tell of them.

        A transaction's mark is an offset too, and no reader's position need have passed it: so the log is asked for
        records, not for its end.
        """
        words = self._follower.words
        for number in sorted(self._unsure):
            source = self._verdicts[number]
            position = words[f"signals/{number}"].positions.get(place_name(*source), 0)
            try:
                if self._log.read(source, max(position, self._log.bounds(source)[0]), 1):
                    return False
            except LogError:
                return False
            self._unsure.discard(number)
        return True

    def _lacking(self, at_ms: int) -> str:
        words = self._follower.words
        late = [f"{name} ({_stands(words.get(name))})" for name in self._detection if not _has_come(words, name, at_ms)]
        late += [
            f"signals/{n} has verdicts to read" for n in range(len(self._verdicts)) if not self._has_read(words, n)
        ]
        return "; ".join(late[:5]) or "verdicts are left to read"


def _has_come(words: Mapping[str, OwnerWord], name: str, at_ms: int) -> bool:
    return name in words and words[name].reached_ms >= at_ms


def _stands(word: OwnerWord | None) -> str:
    return "nobody owns it: is a `cordon worker` running?" if word is None else f"at {word.reached_ms} ms"
