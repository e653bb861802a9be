"""What became of a report: exactly one outcome each, in words used alike in the answer, the log line and the metric.

`Outcome` is closed: a new way to refuse a report is a new member here, with its documentation, or it does not exist.
Gateway outcomes are decided before the report reaches the log and are told to the sender; grouping outcomes are decided
behind the log and are counted.
"""

import enum


class Outcome(enum.StrEnum):
    """One word for what became of a report."""

    ACCEPTED = "accepted"
    INVALID_JSON = "invalid_json"
    INVALID_TYPE = "invalid_type"
    UNKNOWN_KIND = "unknown_kind"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    WRONG_TENANT = "wrong_tenant"
    IN_THE_FUTURE = "in_the_future"
    TOO_OLD = "too_old"
    TOO_LARGE = "too_large"
    THROTTLED = "throttled"
    DUPLICATE = "duplicate"
    WRONG_PARTITION = "wrong_partition"
    TOO_LATE = "too_late"
    FLEET_FULL = "fleet_full"


OUTCOME_DOCS: dict[Outcome, str] = {
    Outcome.ACCEPTED: "The report is durably in the log (gateway), or was applied to the fleet's state (grouping).",
    Outcome.INVALID_JSON: "The report's text is not JSON. Send one JSON object, an array of them, or one a line.",
    Outcome.INVALID_TYPE: "A known field has a wrong type or is out of its range; the answer names the field.",
    Outcome.UNKNOWN_KIND: "`kind` is none of offered, installed, check_in, bsod, boot_loop.",
    Outcome.UNSUPPORTED_SCHEMA: "`schema` is newer than this gateway, or older than the one before its own.",
    Outcome.WRONG_TENANT: "The report names a tenant that the token may not speak for.",
    Outcome.IN_THE_FUTURE: "`at_ms` is ahead of the gateway's clock by more than the allowed skew: a clock jumped.",
    Outcome.TOO_OLD: "`at_ms` is further back than the gateway accepts, or the boot time lies after the report's own.",
    Outcome.TOO_LARGE: "The report alone is larger than one report may be.",
    Outcome.THROTTLED: "The tenant or the device is over its rate; post this report again a little later.",
    Outcome.DUPLICATE: "The device's sequence number was seen before, or lies behind its sliding window.",
    Outcome.WRONG_PARTITION: "The report lies in a log partition that is not its device's: dead-lettered.",
    Outcome.TOO_LATE: "Stored and shown, but older than the history kept for comparison: no evidence.",
    Outcome.FLEET_FULL: "The fleet's state holds as many devices as it may; stored and shown, but no evidence.",
}


class Refusal(enum.StrEnum):
    """Why a whole request was refused: the machine-readable `reason` of a 4xx or 5xx answer."""

    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_REPORTS = "too_many_reports"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    THROTTLED = "throttled"
    OVERLOADED = "overloaded"
    LOG_UNAVAILABLE = "log_unavailable"
    SPOOL_FULL = "spool_full"
    DRAINING = "draining"


REFUSAL_DOCS: dict[Refusal, str] = {
    Refusal.BAD_REQUEST: "400: the body is not JSON, or not of the form the path takes.",
    Refusal.UNAUTHENTICATED: "401: no token, or one that is not known. Send `Authorization: Bearer TOKEN`.",
    Refusal.FORBIDDEN: "403: the token is known but may not do this.",
    Refusal.NOT_FOUND: "404: there is no such rollout, ring or path.",
    Refusal.CONFLICT: "409: the request contradicts what is recorded.",
    Refusal.BODY_TOO_LARGE: "413: the body is too large, as sent or after decompression. Post fewer reports at once.",
    Refusal.TOO_MANY_REPORTS: "413: more reports than one post may carry. Post fewer at once.",
    Refusal.UNSUPPORTED_MEDIA_TYPE: "415: send application/json or application/x-ndjson.",
    Refusal.UNSUPPORTED_ENCODING: "415: Content-Encoding may be gzip, zstd or identity.",
    Refusal.THROTTLED: "429: the tenant or the device is over its rate; try again after Retry-After seconds.",
    Refusal.OVERLOADED: "503: the gateway holds as much as it may; try again after Retry-After seconds.",
    Refusal.LOG_UNAVAILABLE: "503: the log did not take the reports; nothing was acknowledged. Try again.",
    Refusal.SPOOL_FULL: "503: the log is away and the gateway's spool is full; try another gateway, or again later.",
    Refusal.DRAINING: "503: this gateway is stopping; try another, or again after Retry-After seconds.",
}
