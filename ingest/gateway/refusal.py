"""What refuses a whole request: one exception, its closed reason and its HTTP status.

Raised anywhere between the first byte of a post and its place in the log, and turned into an answer in one place. The
invariant: a request that raised it left nothing behind that was acknowledged.
"""

from ingest.outcome import Refusal

STATUS: dict[Refusal, int] = {
    Refusal.BAD_REQUEST: 400,
    Refusal.UNAUTHENTICATED: 401,
    Refusal.FORBIDDEN: 403,
    Refusal.NOT_FOUND: 404,
    Refusal.CONFLICT: 409,
    Refusal.BODY_TOO_LARGE: 413,
    Refusal.TOO_MANY_REPORTS: 413,
    Refusal.UNSUPPORTED_MEDIA_TYPE: 415,
    Refusal.UNSUPPORTED_ENCODING: 415,
    Refusal.THROTTLED: 429,
    Refusal.OVERLOADED: 503,
    Refusal.LOG_UNAVAILABLE: 503,
    Refusal.SPOOL_FULL: 503,
    Refusal.DRAINING: 503,
}


class RequestRefusedError(Exception):
    """A whole request is refused.

    Attributes:
        reason: the closed reason, used alike in the answer and the metric.
        detail: what was wrong and what the sender should do next.
        retry_after_seconds: when to try again; None where trying again would not help.
    """

    def __init__(self, reason: Refusal, detail: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    @property
    def status(self) -> int:
        """Return the HTTP status of this refusal."""
        return STATUS[self.reason]
