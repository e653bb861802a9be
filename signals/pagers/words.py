"""The closed words of paging, each with its documentation.

Shared by registry, incidents, outbox and channels. Invariant: whatever is written to the log, the store or a metric
about a page is one of these words, never free text that a sender chose.
"""

import enum
from typing import Final


class Level(enum.StrEnum):
    """How loud an incident is."""

    NONE = "none"
    CHAT = "chat"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Its place in the order none, chat, high, critical."""
        return _ORDER.index(self)

    def reaches(self, least: "Level") -> bool:
        """Tell whether somebody who wants to hear from `least` on hears of this level; nobody hears of none."""
        return self is not Level.NONE and self.rank >= least.rank


_ORDER: Final = (Level.NONE, Level.CHAT, Level.HIGH, Level.CRITICAL)

LEVEL_DOCS: Final[dict[Level, str]] = {
    Level.NONE: "Nothing stands: whoever was told is told that it is over.",
    Level.CHAT: "Worth knowing, not worth waking: the switch is watching, or a module crashes that is not to blame.",
    Level.HIGH: "The rollout is held.",
    Level.CRITICAL: "The rollout is killed.",
}


class Step(enum.StrEnum):
    """What is told over a route."""

    TRIGGER = "trigger"
    UPDATE = "update"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"
    CHANGE = "change"


STEP_DOCS: Final[dict[Step, str]] = {
    Step.TRIGGER: "Open the incident, or make it louder: this is what wakes people.",
    Step.UPDATE: "Say what is new under the same key, without waking anybody again.",
    Step.ACKNOWLEDGE: "Somebody has it in hand.",
    Step.RESOLVE: "It is over: the rollout was released or went on, or a person said so.",
    Step.CHANGE: "A ring of a rollout has started: context for whoever is on call, no incident.",
}


class Answered(enum.StrEnum):
    """What became of one attempt to deliver."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"


ANSWERED_DOCS: Final[dict[Answered, str]] = {
    Answered.DELIVERED: "The channel took it.",
    Answered.RETRY: "No answer, 408, 425, 429 or a server's error: it is tried again.",
    Answered.REFUSED: "An answer that trying again would not change: it goes to the fallback route and is kept.",
}


class Role(enum.StrEnum):
    """Why somebody is told."""

    OWNER = "owner"
    CO_VICTIM = "co_victim"
    OPERATOR = "operator"


ROLE_DOCS: Final[dict[Role, str]] = {
    Role.OWNER: "It is their rollout.",
    Role.CO_VICTIM: "Another vendor's rollout crashes devices in their module.",
    Role.OPERATOR: "Cordon itself can't see, or nobody is known to own the rollout: whoever runs Cordon is told.",
}


class ChannelKind(enum.StrEnum):
    """What a route speaks to."""

    PAGERDUTY = "pagerduty"
    ALERTMANAGER = "alertmanager"
    JSM = "jsm"
    SLACK = "slack"
    TEAMS = "teams"
    EMAIL = "email"
    WEBHOOK = "webhook"


CHATS: Final = frozenset({ChannelKind.SLACK, ChannelKind.TEAMS, ChannelKind.EMAIL})

CHANNEL_DOCS: Final[dict[ChannelKind, str]] = {
    ChannelKind.PAGERDUTY: "PagerDuty Events API v2.",
    ChannelKind.ALERTMANAGER: "Prometheus Alertmanager, API v2.",
    ChannelKind.JSM: "Jira Service Management operations: alerts by an integration's key.",
    ChannelKind.SLACK: "Slack, by an incoming webhook.",
    ChannelKind.TEAMS: "Microsoft Teams, by a workflow.",
    ChannelKind.EMAIL: "E-mail, by SMTP.",
    ChannelKind.WEBHOOK: "A plain POST of JSON, signed.",
}


class OrderAction(enum.StrEnum):
    """What a person may ask of the pagers."""

    MUTE = "mute"
    UNMUTE = "unmute"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"
    REDELIVER = "redeliver"


ORDER_DOCS: Final[dict[OrderAction, str]] = {
    OrderAction.MUTE: "Tell nobody of a vendor's or a rollout's incidents until a time; kills are told unless asked.",
    OrderAction.UNMUTE: "End such a mute now; what still stands is told.",
    OrderAction.ACKNOWLEDGE: "Tell the channels that know acknowledgement that somebody has it in hand.",
    OrderAction.RESOLVE: "Call a rollout's incidents over although its switch still stands.",
    OrderAction.REDELIVER: "Try again what was given up.",
}
