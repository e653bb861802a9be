"""What a channel is: it sends one message and says what became of it.

Between the service's threads and the vendors' APIs. Invariants: `send` never raises for what the other side does, makes
exactly one attempt (retries, rates and breakers are the dispatcher's), and answers within its time-out.
`RecordingChannel` is the in-memory twin.
"""

import datetime as dt
import email.utils
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from signals.pagers.records import TEXT_MAX, Page
from signals.pagers.words import Answered, ChannelKind, Level, Step

TIMEOUT_SECONDS: Final = 10.0
# Answers that another try may change; every other one below 500 stays as it is.
AGAIN: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell.

    Attributes:
        key: the dedup key.
        sequence: the same for the same message told again over the same route.
        step: what is told.
        level: how loud.
        page: the content.
        headline: the short text.
        lines: the long text.
        links: (text, address).
        opened_ms: since when it waits, milliseconds since the epoch.
    """

    key: str
    sequence: int
    step: Step
    level: Level
    page: Page
    headline: str
    lines: list[str]
    links: list[tuple[str, str]]
    opened_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt.

    Attributes:
        status: the HTTP status; 0 where there was none.
        detail: what was said; cut to `TEXT_MAX` characters.
        retry_after_seconds: how long the channel asks us to wait.
    """

    answered: Answered
    status: int = 0
    detail: str = ""
    retry_after_seconds: float | None = None


class Channel(Protocol):
    """One way to tell somebody."""

    @property
    def kind(self) -> ChannelKind:
        """Return what is spoken."""
        ...

    def send(self, message: Message) -> Answer:
        """Make one attempt; blocks at most a little longer than its time-out."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def answer_of(status: int, text: str, retry_after: str | None, now: Callable[[], dt.datetime] | None = None) -> Answer:
    """Judge an HTTP answer.

    Example:
        >>> answer_of(429, "slow down", "7").answered.value, answer_of(429, "slow down", "7").retry_after_seconds
        ('retry', 7.0)
        >>> answer_of(400, "bad", None).answered.value
        'refused'
    """
    detail = text[:TEXT_MAX]
    if 200 <= status < 300:
        return Answer(Answered.DELIVERED, status, detail)
    if status >= 500 or status in AGAIN:
        return Answer(Answered.RETRY, status, detail, retry_after_seconds(retry_after, now))
    return Answer(Answered.REFUSED, status, detail)


def retry_after_seconds(text: str | None, now: Callable[[], dt.datetime] | None = None) -> float | None:
    """Return what a Retry-After header says, seconds or a date; None where it says nothing we can read."""
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)
    return max(0.0, (at - (now or _utc_now)()).total_seconds())


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(slots=True)
class RecordingChannel:
    """The twin: keeps what it was sent, and answers as it is told."""

    answers: Callable[[Message], Answer] = field(default=lambda _: Answer(Answered.DELIVERED, 202))
    kind: ChannelKind = ChannelKind.WEBHOOK
    sent: list[Message] = field(default_factory=list)
    closed: bool = False

    def send(self, message: Message) -> Answer:
        """Keep the message and answer."""
        self.sent.append(message)
        return self.answers(message)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
