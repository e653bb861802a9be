"""What becomes of a record of `cordon.intake.v1`: the same as of a post, with dead letters in the place of answers.

A record's value is one report as a JSON object, or an array of them; its header `authorization` says `Bearer TOKEN`.
Pure of Kafka: the shell in `intake_consumer` brings records and commits what `take` has returned from. The invariant:
once `take` returns, every report of its records is durably accepted or its refusal durably dead-lettered; what was only
throttled, or could not be taken now, is tried until then. Records may come again: grouping tells by sequence numbers.
"""

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from ingest.deadletter import LETTERS_MAX, DeadLetter, DeadReason, entries_of, letter_of
from ingest.gateway.gateway import Gateway
from ingest.gateway.parse import Refused
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.tenants import Principal
from ingest.log.interface import Log, LogUnavailableError, Record, TopicPartition
from ingest.outcome import Outcome, Refusal

logger = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
RETRY_SECONDS_MAX = 30
_RETRY_SECONDS = 1
# What passes by itself; everything else would be refused again.
_PASSING = frozenset(
    {Refusal.THROTTLED, Refusal.OVERLOADED, Refusal.LOG_UNAVAILABLE, Refusal.SPOOL_FULL, Refusal.DRAINING}
)
_raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_SPACE = b" \t\r\n"


class IntakeResult(enum.StrEnum):
    """What became of a record, in the metric's label."""

    ACCEPTED = "accepted"  # all of its reports
    PARTLY = "partly"  # some of its reports were refused
    REFUSED = "refused"  # all of it
    RETRIED = "retried"  # not taken now: counted once a try


class IntakeRecord(NamedTuple):
    """A record with its headers."""

    record: Record
    headers: Sequence[tuple[str, bytes]]


class IntakeStage:
    """Takes records to the gateway; belongs to its event loop."""

    def __init__(self, gateway: Gateway, log: Log, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Post to `gateway`.

        Args:
            gateway: started, and not drained before the last `take` has ended.
            log: gets the dead letters.
            sleep: waits before another try.
        """
        self._gateway = gateway
        self._log = log
        self._sleep = sleep
        self._deadletter = gateway.topics.name("deadletter")

    async def take(self, source: TopicPartition, records: Sequence[IntakeRecord]) -> None:
        """Take the next records of a partition; return once all that is in them is durable, here or there."""
        buried = await asyncio.gather(*(self._take_one(source, one) for one in records))
        await self._bury([letter for letters in buried for letter in letters])

    async def _take_one(self, source: TopicPartition, taken: IntakeRecord) -> list[DeadLetter]:
        """Post one record until nothing of it is left to try; return its dead letters."""
        record, body = taken.record, taken.record.value or b""
        principal = self._principal(taken.headers)
        if principal is None:
            self._count(IntakeResult.REFUSED)
            detail = "send the header `authorization: Bearer TOKEN` with a token known to the gateway"
            return [letter_of("gateway", source, record, DeadReason.UNAUTHENTICATED, detail)]
        limit = self._gateway.settings.body_inflated_bytes_max
        if len(body) > limit:
            self._count(IntakeResult.REFUSED)
            return [letter_of("gateway", source, record, DeadReason.REFUSED, f"{len(body)} bytes, at most {limit}")]
        letters: list[DeadLetter] = []
        places: Sequence[int] | None = None
        accepted = 0
        while True:
            try:
                self._gateway.admit(principal)
                answer = await self._gateway.post(body, False, principal)
            except RequestRefusedError as refusal:
                if refusal.reason in _PASSING:
                    await self._later(refusal.retry_after_seconds)
                    continue
                self._count(IntakeResult.REFUSED)
                self._gateway.metrics.count("requests_refused_total", reason=refusal.reason)
                detail = f"{refusal.reason}: {refusal.detail}"
                return [*letters, letter_of("gateway", source, record, DeadReason.REFUSED, detail)]
            accepted += answer.accepted
            items = _items(body) if answer.refused else []
            refused = [item for item in answer.refused if item.reason is not Outcome.THROTTLED]
            letters += _letters(source, record, items, refused, places)
            left = [item.place for item in answer.refused if item.reason is Outcome.THROTTLED]
            if not left:
                break
            places = [places[place] if places is not None else place for place in left]
            body = b"[" + b",".join(bytes(items[place]) for place in left) + b"]"
            await self._later(None)
        self._count(IntakeResult.ACCEPTED if not letters else IntakeResult.PARTLY if accepted else IntakeResult.REFUSED)
        return letters

    def _principal(self, headers: Sequence[tuple[str, bytes]]) -> Principal | None:
        for name, value in headers:
            if name.lower() == AUTHORIZATION:
                return self._gateway.tokens.authenticate(value.decode("latin-1"))
        return None

    async def _later(self, seconds: int | None) -> None:
        self._count(IntakeResult.RETRIED)
        await self._sleep(min(seconds or _RETRY_SECONDS, RETRY_SECONDS_MAX))

    def _count(self, result: IntakeResult) -> None:
        self._gateway.metrics.count("intake_records_total", result=result.value)

    async def _bury(self, letters: Sequence[DeadLetter]) -> None:
        """Write dead letters, however long that takes."""
        if not letters:
            return
        entries = entries_of(letters, self._deadletter, self._gateway.metrics)
        while True:
            try:
                await asyncio.to_thread(self._log.append, entries)
            except LogUnavailableError as error:
                logger.warning("dead letters can't be written now, trying on: %s", error)
                await self._sleep(_RETRY_SECONDS)
            else:
                return


def _items(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    """Return the texts of a body's reports; the gateway has found it to be JSON, but for a report that stands alone."""
    if not body.lstrip(_SPACE).startswith(b"["):
        return [body]
    return _raw_decoder.decode(body)


def _letters(
    source: TopicPartition,
    record: Record,
    items: Sequence[bytes | msgspec.Raw],
    refused: Sequence[Refused],
    places: Sequence[int] | None,
) -> list[DeadLetter]:
    """Return a letter for each refused report, with the report's own text, so that it can be mended and sent again.

    A record has `LETTERS_MAX` of them at most; the last one tells how many more there were.
    """
    letters = [
        letter_of(
            "gateway",
            source,
            record._replace(value=bytes(items[item.place])),
            DeadReason.REFUSED,
            f"report {places[item.place] if places is not None else item.place}: {item.reason}: {item.detail}",
        )
        for item in refused[:LETTERS_MAX]
    ]
    if len(refused) > len(letters):
        letters[-1] = msgspec.structs.replace(letters[-1], dropped=len(refused) - len(letters))
    return letters
