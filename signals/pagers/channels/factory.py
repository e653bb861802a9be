"""From a route of the registry to the channel that speaks for it.

Called by the service when a route is first needed and after the registry changed. Invariant: secrets are read here and
nowhere else, from files that only their owner can read, and are in no message and no log line.
"""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from signals.pagers.channels.alertmanager import AlertmanagerChannel
from signals.pagers.channels.interface import Channel
from signals.pagers.channels.jsm import JsmChannel
from signals.pagers.channels.pagerduty import PagerDutyChannel
from signals.pagers.channels.webhook import WebhookChannel
from signals.pagers.registry import Route
from signals.pagers.words import ChannelKind

SECRET_BYTES_MAX: Final = 4096
# Sends a minute where the registry says nothing: PagerDuty takes about 120 a minute of an integration key; Slack one a
# second of a webhook; a Teams workflow four a second; Atlassian's limits depend on the plan.
PER_MINUTE: Final[dict[ChannelKind, int]] = {
    ChannelKind.PAGERDUTY: 100,
    ChannelKind.ALERTMANAGER: 600,
    ChannelKind.JSM: 60,
    ChannelKind.SLACK: 50,
    ChannelKind.TEAMS: 60,
    ChannelKind.EMAIL: 30,
    ChannelKind.WEBHOOK: 300,
}


class ChannelError(Exception):
    """A route's channel can't be made; the message says what to do."""


def per_minute(route: Route) -> int:
    """Return how many sends a minute a route may make."""
    return route.per_minute or PER_MINUTE[route.channel]


def channel_of(name: str, route: Route, folder: Path) -> Channel:
    """Make the channel of a route; nothing connects yet.

    Args:
        name: of the route, for messages.
        route: what the registry says.
        folder: what `secret_file` is relative to.

    Raises:
        ChannelError: its secret can't be read or used.
    """
    secret = _secret(name, folder / route.secret_file) if route.secret_file else ""
    try:
        return _MAKERS[route.channel](route, secret)
    except ValueError as error:
        raise ChannelError(f"route {name}: {error}") from error


def _secret(name: str, path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ChannelError(f"route {name}: others may read {path}: chmod 600 it")
        text = path.read_bytes()[:SECRET_BYTES_MAX].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ChannelError(f"route {name}: its secret can't be read: {error}") from error
    if not text or any(ord(sign) < 32 for sign in text):
        raise ChannelError(f"route {name}: {path} must hold the secret in one line")
    return text


def _chat(route: Route, secret: str) -> Channel:
    # Apprise takes a third of a second to import: only who has a chat pays for it.
    from signals.pagers.channels.chat import ChatChannel

    return ChatChannel(route.channel, secret)


_MAKERS: Final[Mapping[ChannelKind, Callable[[Route, str], Channel]]] = {
    ChannelKind.PAGERDUTY: lambda route, secret: PagerDutyChannel(secret, route.url),
    ChannelKind.ALERTMANAGER: lambda route, secret: AlertmanagerChannel(route.url, secret, route.labels),
    ChannelKind.JSM: lambda route, secret: JsmChannel(secret, route.url, route.responders),
    ChannelKind.SLACK: _chat,
    ChannelKind.TEAMS: _chat,
    ChannelKind.EMAIL: _chat,
    ChannelKind.WEBHOOK: lambda route, secret: WebhookChannel(route.url, secret),
}
