"""The audit trail in pages, as it lies in the log: whoever reads it can check every digest.

Invariant: the bytes of an entry are those that were appended; nothing is decoded and encoded again on the way.
"""

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import Log, LogError, LogUnavailableError, TopicPartition
from ingest.operations import Answer, Operation, Parameter
from ingest.outcome import Refusal
from signals.delivery.http.context import READ_ROLES, RETRY_AFTER_SECONDS, Context, answer
from signals.delivery.http.target import single_parameters
from signals.events import AuditEntry

LIMIT_MAX = 1000
BYTES_MAX = 4 << 20
_LIMIT = 100


class AuditPage(msgspec.Struct, kw_only=True):
    """One page of the audit trail.

    Attributes:
        entries: as they were appended, byte for byte; each digest is over those bytes. An append whose acknowledgement
            was lost may lie there twice.
        next: the `after` of the next page.
        more: whether there was more when this page was read.
        partitions: how many partitions the trail has, numbered from 0, each a chain by itself.
    """

    entries: list[AuditEntry]
    next: int
    more: bool
    partitions: int


_WHOLE = Annotated[int, Meta(ge=0)]
OPERATIONS = (
    Operation(
        "GET",
        "/v1/audit",
        "audit",
        "The audit trail: every move of a switch, and what every person asked for.",
        (Answer(200, "A page of one partition.", AuditPage),),
        roles=READ_ROLES,
        parameters=(
            Parameter("partition", "Which partition; 0 by default.", _WHOLE),
            Parameter("after", "The `next` of the page before; the beginning by default.", _WHOLE),
            Parameter("limit", f"Most entries; {_LIMIT} by default.", Annotated[int, Meta(ge=1, le=LIMIT_MAX)]),
        ),
        refusals=(Refusal.BAD_REQUEST, Refusal.LOG_UNAVAILABLE),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the route."""
    service = context.service

    async def audit(request: Request) -> Response:
        context.principal(request, READ_ROLES)
        query = single_parameters(request, {"partition", "after", "limit"})
        partitions = service.topics.keyed_partitions
        partition = _number(query, "partition", 0, 0, partitions - 1)
        after = _number(query, "after", 0, 0, 1 << 62)
        limit = _number(query, "limit", _LIMIT, 1, LIMIT_MAX)
        source = TopicPartition(service.topics.name("audit"), partition)
        try:
            found, next_offset, more = await asyncio.to_thread(_page, service.log, source, after, limit)
        except LogUnavailableError as error:
            raise RequestRefusedError(
                Refusal.LOG_UNAVAILABLE, f"the log can't be read now: {error}", RETRY_AFTER_SECONDS
            ) from error
        except LogError as error:
            raise RequestRefusedError(Refusal.BAD_REQUEST, f"after={after}: {error}") from error
        entries = [msgspec.Raw(entry) for entry in found]
        return answer({"entries": entries, "next": next_offset, "more": more, "partitions": partitions})

    return [Route("/v1/audit", audit)]


def _page(log: Log, source: TopicPartition, after: int, limit: int) -> tuple[list[bytes], int, bool]:
    first, end = log.bounds(source)
    if after > end:
        raise RequestRefusedError(
            Refusal.BAD_REQUEST,
            f"after={after} lies ahead of this trail, which ends at {end}: it was cut off or replaced, or is another's",
        )
    offset = max(first, after)
    records = log.read(source, offset, limit, BYTES_MAX) if offset < end else []
    next_offset = records[-1].offset + 1 if records else max(offset, end)
    return [record.value for record in records if record.value is not None], next_offset, next_offset < end


def _number(query: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"{name}={text[:32]!r}: a whole number from {least} to {most}")
    return int(text)
