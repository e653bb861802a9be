"""From the bytes of a post to reports and refusals: the gateway's first stage, pure.

The whole body is decoded at once by a typed decoder and checked as a batch. Only when that finds fault are the items
taken one by one, so that good reports in the same post survive and each bad one gets its own outcome. The invariant:
every item of the post is either in `Parsed.reports` or in `Parsed.refused`, exactly once, and nothing raises but
`RequestRefusedError`.

An array is one JSON text: if its text is broken no item can be told from the next and the whole body is refused.
NDJSON keeps the damage to a line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Any, NamedTuple

import msgspec

from ingest.events import SCHEMAS_READ, Report, os_build_ok, report_decoder
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.tenants import Principal
from ingest.outcome import Outcome, Refusal

DETAIL_CHARACTERS_MAX = 200
# A boot that began after the report was written is a clock that jumped; a minute of correction is ordinary.
BOOT_SKEW_MS = 60_000
# The shortest report that can be valid has 140 bytes: what a body holds beyond that bounds its largest item.
_VALID_REPORT_BYTES_MIN = 130
# An array of many tiny items costs 64 bytes an item to take apart; reports have some 15 commas each, crashes up to 300.
_COMMAS_PER_REPORT_MAX = 200
_BLANK_LINES_FACTOR = 2
_NUL_ESCAPE = b"\\u0000"
# The longest name that every report has: long names are found faster.
_NAME_IN_EACH = b'"form_factor"'
_SPACE = b" \t\r\n"
_FIRST = range(1)

_array_decoder = msgspec.json.Decoder(list[Report])
_raw_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one post may hold; times in milliseconds, sizes in bytes."""

    reports_max: int = 5000
    report_bytes_max: int = 65536
    future_skew_ms: int = 120_000
    age_max_ms: int = 30 * 86_400_000


class Refused(NamedTuple):
    """One item that was refused: its place in the post (`index` in the answer), the outcome, and what was wrong."""

    place: int
    reason: Outcome
    detail: str


class Parsed(NamedTuple):
    """What a post held: good reports with their places in the post, and refusals."""

    reports: list[Report]
    indices: Sequence[int]
    refused: list[Refused]


class _Window(NamedTuple):
    """The bounds of `at_ms` in this moment, and who speaks."""

    from_ms: int
    to_ms: int
    principal: Principal


def parse(body: bytes, ndjson: bool, limits: ParseLimits, now_ms: int, principal: Principal) -> Parsed:
    """Take a post apart into reports and refusals.

    Args:
        body: the inflated body: one JSON object, an array of them, or one a line.
        ndjson: the body holds one JSON object a line.
        limits: what one post may hold.
        now_ms: the gateway's clock.
        principal: who posts; decides which tenants may be named.

    Raises:
        RequestRefusedError: the body as a whole is not JSON of that form, or holds too many reports.
    """
    window = _Window(now_ms - limits.age_max_ms, now_ms + limits.future_skew_ms, principal)
    if not ndjson and not body.lstrip(_SPACE).startswith(b"["):
        return _parse_one(body, limits, window)
    if ndjson and body.count(b"\n") > limits.reports_max * _BLANK_LINES_FACTOR:
        raise _too_many(limits)
    try:
        reports = report_decoder.decode_lines(body) if ndjson else _array_decoder.decode(body)
    except _DECODE_ERRORS:
        return _parse_items(_split(body, ndjson, limits), limits, window)
    if len(reports) > limits.reports_max:
        raise _too_many(limits)
    if not _texts_fine(body, ndjson, len(reports), limits):
        return _parse_items(_split(body, ndjson, limits), limits, window)
    if _all_fine(reports, window):
        return Parsed(reports, range(len(reports)), [])
    return _sift(enumerate(reports), window, [])


def _parse_one(body: bytes, limits: ParseLimits, window: _Window) -> Parsed:
    """Parse a body that is one object; a sound one needs none of the lists that many need."""
    if len(body) <= limits.report_bytes_max and _NUL_ESCAPE not in body:
        try:
            report = report_decoder.decode(body)
        except _DECODE_ERRORS:
            pass  # told below, with its outcome
        else:
            if _fault_of(report, window) is None:
                return Parsed([report], _FIRST, [])
    if not body.strip(_SPACE):
        raise RequestRefusedError(Refusal.BAD_REQUEST, "the body is empty: post one JSON object, an array or NDJSON")
    return _parse_items([body], limits, window)


def _too_many(limits: ParseLimits) -> RequestRefusedError:
    return RequestRefusedError(
        Refusal.TOO_MANY_REPORTS, f"more than {limits.reports_max} reports in one post: post fewer at once"
    )


def _split(body: bytes, ndjson: bool, limits: ParseLimits) -> Sequence[bytes | msgspec.Raw]:
    """Return the texts of the items, at most `limits.reports_max` of them."""
    items: Sequence[bytes | msgspec.Raw]
    if ndjson:
        items = [line for line in body.split(b"\n") if line.strip(_SPACE)]
    else:
        if body.count(b",") > limits.reports_max * _COMMAS_PER_REPORT_MAX:
            raise _too_many(limits)
        try:
            items = _raw_decoder.decode(body)
        except _DECODE_ERRORS as error:
            detail = f"the body is not JSON: {_text(error)}; send NDJSON to keep one bad report from spoiling the rest"
            raise RequestRefusedError(Refusal.BAD_REQUEST, detail) from error
    if len(items) > limits.reports_max:
        raise _too_many(limits)
    return items


def _texts_fine(body: bytes, ndjson: bool, count: int, limits: ParseLimits) -> bool:
    """Tell whether no item of a body that decoded well is too large or might hold a NUL.

    Ordinary posts hold no backslash, and looking for one byte costs next to nothing.
    """
    escaped = b"\\" in body
    if escaped and _NUL_ESCAPE in body:
        return False
    if len(body) - _VALID_REPORT_BYTES_MIN * (count - 1) <= limits.report_bytes_max:
        return True
    if ndjson:
        return max(map(len, body.split(b"\n"))) <= limits.report_bytes_max
    if not escaped and _evenly_spread(body, count, limits.report_bytes_max):
        return True
    texts = _raw_decoder.decode(body)
    return all(len(memoryview(text)) <= limits.report_bytes_max for text in texts)


def _evenly_spread(body: bytes, count: int, report_bytes_max: int) -> bool:
    """Prove, where it is easy, that no report of an array is too large, at a fourth of the cost of measuring each.

    Where nothing is escaped each of the `count` reports holds the name of a field it can't do without literally; if
    the body holds it no oftener, each holds it once. If moreover each third of the largest size, from the body's first
    byte on, holds the name, then a report, which reaches at most from the name before its own to the name after its
    own, is smaller than three thirds.
    """
    third = report_bytes_max // 3
    if third < len(_NAME_IN_EACH) or body.count(_NAME_IN_EACH) != count:
        return False
    # What the last step leaves at the body's end is shorter than a third.
    return all(body.find(_NAME_IN_EACH, at, at + third) >= 0 for at in range(0, len(body) - third, third))


def _all_fine(reports: list[Report], window: _Window) -> bool:
    """Tell whether a whole batch passes every check, at a fraction of the cost of asking each report."""
    if not reports:
        return True
    times = [report.at_ms for report in reports]
    earliest = min(times)
    if earliest < window.from_ms or max(times) > window.to_ms:
        return False
    boots = [report.boot_at_ms for report in reports]
    if max(boots) - earliest > BOOT_SKEW_MS and max(map(sub, boots, times)) > BOOT_SKEW_MS:
        return False
    return (
        {report.schema for report in reports} <= SCHEMAS_READ
        and all(map(os_build_ok, {report.os_build for report in reports}))
        and all(map(window.principal.speaks_for, {report.tenant for report in reports}))
    )


def _parse_items(items: Sequence[bytes | msgspec.Raw], limits: ParseLimits, window: _Window) -> Parsed:
    good: list[tuple[int, Report]] = []
    refused: list[Refused] = []
    for index, item in enumerate(items):
        size = len(memoryview(item))
        if size > limits.report_bytes_max:
            detail = f"the report has {size} bytes; at most {limits.report_bytes_max} are taken"
            refused.append(Refused(index, Outcome.TOO_LARGE, detail))
            continue
        try:
            report = report_decoder.decode(item)
        except _DECODE_ERRORS as error:
            refused.append(Refused(index, _outcome_of(error), _text(error)))
            continue
        if _NUL_ESCAPE in bytes(item) and _holds_nul(msgspec.to_builtins(report)):
            refused.append(Refused(index, Outcome.INVALID_TYPE, "a text holds a NUL character: remove it"))
            continue
        good.append((index, report))
    return _sift(good, window, refused)


def _sift(items: Iterable[tuple[int, Report]], window: _Window, refused: list[Refused]) -> Parsed:
    reports: list[Report] = []
    indices: list[int] = []
    for index, report in items:
        fault = _fault_of(report, window)
        if fault is None:
            reports.append(report)
            indices.append(index)
        else:
            refused.append(Refused(index, *fault))
    refused.sort()
    return Parsed(reports, indices, refused)


def _fault_of(report: Report, window: _Window) -> tuple[Outcome, str] | None:
    if report.schema not in SCHEMAS_READ:
        return Outcome.UNSUPPORTED_SCHEMA, f"schema {str(report.schema)[:20]} is not among {sorted(SCHEMAS_READ)}"
    if not os_build_ok(report.os_build):
        return Outcome.INVALID_TYPE, f"os_build {report.os_build!r} is not a build and revision such as 22631.3880"
    if not window.principal.speaks_for(report.tenant):
        if report.tenant:
            return Outcome.WRONG_TENANT, f"this token may not speak for tenant {report.tenant!r}"
        return Outcome.WRONG_TENANT, "a collector's token speaks for several tenants: name the report's `tenant`"
    if report.at_ms > window.to_ms:
        return Outcome.IN_THE_FUTURE, f"at_ms {report.at_ms} is beyond {window.to_ms}: set the device's clock"
    if report.at_ms < window.from_ms:
        return Outcome.TOO_OLD, f"at_ms {report.at_ms} is before {window.from_ms}, the oldest time taken"
    if report.boot_at_ms - report.at_ms > BOOT_SKEW_MS:
        return Outcome.TOO_OLD, f"the boot began at {report.boot_at_ms}, after the report's own {report.at_ms}"
    return None


def _outcome_of(error: Exception) -> Outcome:
    if not isinstance(error, msgspec.ValidationError):
        return Outcome.INVALID_JSON
    text = str(error)
    if text.endswith("`$.kind`") or "required field `kind`" in text:
        return Outcome.UNKNOWN_KIND
    return Outcome.INVALID_TYPE


def _text(error: Exception) -> str:
    """Return what was wrong, short, and without the body that a UnicodeDecodeError drags along."""
    if isinstance(error, RecursionError):
        return "nested deeper than this gateway reads"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason}"
    return str(error)[:DETAIL_CHARACTERS_MAX]


def _holds_nul(value: Any) -> bool:
    """Tell whether any text in builtin containers holds a NUL; reports nest three levels at most."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
