"""Where people ask for webhooks: makes, changes and removes subscriptions, and shows how they fare.

Between the HTTP handlers and the log: what is asked becomes a record of `cordon.subscriptions.v1`, and what became of
it is read from the view. Invariants: of two changes at once none is lost, for each is made under a claim and on what
the log says by then; a secret is returned once and written nowhere.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from detectors.scope import Scope
from ingest.events import encoder
from ingest.log.interface import Entry, FencedError, Record, TopicPartition
from signals.client.webhooks import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from signals.delivery.wanted import Drills
from signals.delivery.webhooks.deliverer import USER_AGENT, DeliveryParts, latest_records
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.targets import TargetPolicy
from signals.delivery.webhooks.view import UnknownWebhookError, WebhookStatus, WebhookView, decoded, required, status_of
from signals.delivery.webhooks.words import (
    REDELIVERIES_MAX,
    Redelivery,
    Subscription,
)

FENCE = "webhooks/subscriptions"
TRIES_MAX = 10
TEST_TYPE = "io.cordon.webhook.test.v1"

Lookup = Callable[[str, int], Awaitable[list[str]]]
Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Result]]


class TooManyWebhooksError(Exception):
    """There are as many subscriptions as may be, or too many changes at once."""


class Wanted(msgspec.Struct, kw_only=True, frozen=True):
    """What a subscription should be; what is unset stays as it is, or has its default."""

    url: str | None = None
    note: str | None = None
    rollouts: list[str] | None = None
    products: list[str] | None = None
    scope: Scope | None = None
    drills: Drills | None = None
    enabled: bool | None = None
    start: str | None = None


class WebhookDesk:
    """Made once a process; its methods block on the log, so that handlers call them in threads."""

    def __init__(self, parts: DeliveryParts, policy: TargetPolicy, post: Post, subscriptions_max: int) -> None:
        """Prepare; the view must be started before anything is asked.

        Args:
            parts: log, topics, key, clock.
            policy: where webhooks may go.
            post: posts from the webhooks' own loop; for tests that somebody asks for.
            subscriptions_max: setting `webhook_subscriptions_max`.
        """
        self.policy = policy
        self._parts, self._post, self._subscriptions_max = parts, post, subscriptions_max
        self._source = TopicPartition(parts.topics.name("subscriptions"), 0)
        self._partitions = range(parts.topics.keyed_partitions)
        self.view = WebhookView(parts.log, parts.topics)

    def create(self, wanted: Wanted, principal: str) -> tuple[WebhookStatus, str]:
        """Make a subscription, and return it with its secret.

        Raises:
            TooManyWebhooksError: there are as many as may be.
            LogError: the log did not take it.
        """
        fresh = Subscription(
            id=f"wh-{secrets.token_hex(8)}",
            url=wanted.url or "",
            starts=self._starts(wanted.start or "latest"),
            created_by=principal,
            created_ms=self._parts.clock.now_ms(),
        )

        def make(known: Mapping[str, Subscription]) -> Subscription:
            if len(known) >= self._subscriptions_max:
                raise TooManyWebhooksError(
                    f"there are {len(known)} webhooks, as many as may be (setting webhook_subscriptions_max)"
                )
            return _edited(fresh, wanted)

        made = self._change(fresh.id, make)
        return status_of(made, [], 0), self._parts.key.secret(made.id, made.version)

    def change(self, name: str, wanted: Wanted) -> WebhookStatus:
        """Change a subscription; whatever made Cordon stop serving it is forgotten.

        Raises:
            UnknownWebhookError: there is none of that id.
            LogError: the log did not take it.
        """
        starts = self._starts(wanted.start) if wanted.start is not None else None

        def edit(known: Mapping[str, Subscription]) -> Subscription:
            one = _next(required(known, name))
            if starts is not None:
                one = msgspec.structs.replace(one, starts=starts, start_revision=one.revision)
            return _edited(one, wanted)

        self._change(name, edit)
        return self.view.get(name)

    def rotate(self, name: str) -> str:
        """Return a new secret; for a day the one before signs too.

        Raises:
            UnknownWebhookError: there is none of that id.
            LogError: the log did not take it.
        """

        def edit(known: Mapping[str, Subscription]) -> Subscription:
            one = _next(required(known, name))
            return msgspec.structs.replace(one, version=one.version + 1, rotated_ms=self._parts.clock.now_ms())

        changed = self._change(name, edit)
        return self._parts.key.secret(name, changed.version)

    def redeliver(self, name: str, event_id: str = "") -> int:
        """Ask for one dead letter, or all, to be delivered again; return how many are meant.

        Raises:
            UnknownWebhookError: there is no such subscription, or no such dead letter.
            LogError: the log did not take it.
        """
        meant = [letter for letter in self.view.dead(name) if event_id in ("", letter.event_id)]
        if event_id and not meant:
            raise UnknownWebhookError(f"webhook {name} has no dead letter {event_id[:100]!r}")

        def edit(known: Mapping[str, Subscription]) -> Subscription:
            one = _next(required(known, name))
            serial = max((redelivery.serial for redelivery in one.redeliveries), default=0) + 1
            asked = [*one.redeliveries, Redelivery(serial=serial, event_id=event_id)][-REDELIVERIES_MAX:]
            return msgspec.structs.replace(one, redeliveries=asked)

        self._change(name, edit)
        return len(meant)

    def remove(self, name: str) -> None:
        """Remove a subscription with its dead letters.

        Raises:
            UnknownWebhookError: there is none of that id.
            LogError: the log did not take it.
        """

        def edit(known: Mapping[str, Subscription]) -> None:
            required(known, name)

        self._append(name, edit)

    async def test(self, name: str) -> Result:
        """Post an event that says nothing, signed with the secret alone, and return how that ended.

        Raises:
            UnknownWebhookError: there is none of that id.
        """
        subscription, now_ms = self.view.known(name), self._parts.clock.now_ms()
        event_id = f"test-{secrets.token_hex(8)}"
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/cordon/{self._parts.topics.lane}",
            "type": TEST_TYPE,
            "datacontenttype": "application/json",
            "data": {"webhook": name, "sentence": "This is a test: no rollout moved."},
        }
        body = encoder.encode(event)
        headers = {
            "content-type": "application/cloudevents+json",
            "user-agent": USER_AGENT,
            ID_HEADER: event_id,
            TIMESTAMP_HEADER: str(now_ms // 1000),
            SIGNATURE_HEADER: self._parts.key.signatures(subscription, event_id, now_ms, body),
        }
        return await self._post(subscription.url, headers, body)

    def _starts(self, word: str) -> list[int]:
        topic = self._parts.topics.name("killswitch")
        bounds = [self._parts.log.bounds(TopicPartition(topic, number)) for number in self._partitions]
        return [first if word == "start" else end for first, end in bounds]

    def _change(self, name: str, edit: Callable[[Mapping[str, Subscription]], Subscription]) -> Subscription:
        changed = self._append(name, edit)
        assert changed is not None
        return changed

    def _append(
        self, name: str, edit: Callable[[Mapping[str, Subscription]], Subscription | None]
    ) -> Subscription | None:
        """Append what `edit` makes of what the log says now; None removes."""
        log = self._parts.log
        for _ in range(TRIES_MAX):
            fence = log.claim(FENCE)
            # Read after the claim: whoever had it before can write no more.
            records, end = latest_records(log, self._source)
            changed = edit(_subscriptions_of(records))
            value = encoder.encode(changed) if changed is not None else None
            try:
                log.append([Entry(*self._source, name.encode(), value)], fence)
            except FencedError:
                continue
            # Whoever asked looks at once; the tail brings the same a moment later.
            self.view.take(self._source, [Record(end, name.encode(), value, 0)])
            return changed
        raise TooManyWebhooksError("too many changes at once: try again")


def _subscriptions_of(records: Iterable[Record]) -> dict[str, Subscription]:
    found = [one for record in records if (one := decoded(record)) is not None]
    return {one.id: one for one in found}


def _next(one: Subscription) -> Subscription:
    return msgspec.structs.replace(one, revision=one.revision + 1)


def _edited(one: Subscription, wanted: Wanted) -> Subscription:
    given = {
        name: value
        for name in ("url", "note", "rollouts", "products", "scope", "drills", "enabled")
        if (value := getattr(wanted, name)) is not None
    }
    return msgspec.structs.replace(one, **given)
