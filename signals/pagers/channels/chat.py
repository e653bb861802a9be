"""Slack, Teams and e-mail, through apprise.

Apprise knows each service's form; here texts are cut to what the service takes before apprise would split them into
several messages. What it tells of a failure is a line of its log with the HTTP status, which is read: 4xx other than
408, 425 and 429 is not retried, everything else is. It does not tell Retry-After, so the breaker's own pauses apply.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from apprise import Apprise, NotifyFormat, NotifyType

from signals.pagers.channels.interface import AGAIN, Answer, Message
from signals.pagers.content import FRAMES
from signals.pagers.records import TEXT_MAX
from signals.pagers.words import Answered, ChannelKind, Level, Step

SCHEMES: Final[dict[ChannelKind, frozenset[str]]] = {
    ChannelKind.SLACK: frozenset({"slack"}),
    ChannelKind.TEAMS: frozenset({"workflows", "workflow"}),
    ChannelKind.EMAIL: frozenset({"mailto", "mailtos"}),
}
TITLE_MAX: Final = 150
# Of a section of Slack's Block Kit; of what apprise gives to a Teams workflow at once; of a mail, any bound.
BODY_MAX: Final = {ChannelKind.SLACK: 3000, ChannelKind.TEAMS: 900, ChannelKind.EMAIL: 20_000}
_STATUS: Final = re.compile(r"error[=: ]+(\d{3})\b")
_TYPES: Final = {
    Level.CRITICAL: NotifyType.FAILURE,
    Level.HIGH: NotifyType.WARNING,
    Level.CHAT: NotifyType.INFO,
    Level.NONE: NotifyType.SUCCESS,
}


class ChatChannel:
    """Speaks to one chat or mailbox."""

    def __init__(self, kind: ChannelKind, url: str) -> None:
        """Take apprise's URL, which is a secret.

        Raises:
            ValueError: apprise can't read it, or it is of another service.
        """
        self._kind = kind
        if urlsplit(url).scheme not in SCHEMES[kind]:
            raise ValueError(f"{kind.value} wants an apprise URL that begins with {' or '.join(SCHEMES[kind])}://")
        self._apprise = Apprise()
        if not self._apprise.add(_whole(kind, url)):
            raise ValueError(f"apprise can't read this URL of {kind.value}; see its page on that service")

    @property
    def kind(self) -> ChannelKind:
        """Return what is spoken."""
        return self._kind

    def send(self, message: Message) -> Answer:
        """Say it once."""
        title, body = texts(self._kind, message)
        said: list[str] = []
        result = self._apprise.notify(
            title=title,
            body=body,
            notify_type=NotifyType.SUCCESS if message.step is Step.RESOLVE else _TYPES[message.level],
            body_format=NotifyFormat.TEXT,
            log_callback=lambda entry, _service: said.append(str(entry)),
        )
        if result:
            return Answer(Answered.DELIVERED, 200, "apprise delivered it")
        detail = "; ".join(said)[-TEXT_MAX:] or "apprise could not deliver it and did not say why"
        statuses = _STATUS.findall(detail)
        status = int(statuses[-1]) if statuses else 0
        refused = 400 <= status < 500 and status not in AGAIN
        return Answer(Answered.REFUSED if refused else Answered.RETRY, status, detail)

    def close(self) -> None:
        """Nothing is held between messages."""


def texts(kind: ChannelKind, message: Message) -> tuple[str, str]:
    """Return title and body, cut to what the service takes: frames go first, those of the rarest signature before."""
    lines = [*message.lines, *(f"{text}: {href}" for text, href in message.links)]
    most = BODY_MAX[kind]
    for place in reversed([place for place, line in enumerate(lines) if line.startswith(f"{FRAMES}: ")]):
        if len("\n".join(lines)) > most:
            del lines[place]
    body = "\n".join(lines) or message.headline
    return message.headline[:TITLE_MAX], body if len(body) <= most else body[: most - 3] + "..."


def _whole(kind: ChannelKind, url: str) -> str:
    """Ask apprise for one message and Slack's blocks; what the file says itself stays."""
    if kind is not ChannelKind.SLACK or "blocks=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}blocks=yes"
