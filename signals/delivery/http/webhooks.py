"""Webhooks: who gets events posted, how they fare, dead letters and redelivery.

Handlers decide nothing: the desk makes, changes and removes subscriptions. Invariants: a URL that webhooks may not go
to, and a rollout that nobody knows, are refused before anything is written; a secret is answered once, when it is made.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from detectors.scope import Scope, ScopeError
from ingest.events import UNREADABLE_ERRORS, os_build_ok
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import LogUnavailableError
from ingest.operations import Answer, Operation, Parameter
from ingest.outcome import Refusal
from signals.delivery.http.context import COMMAND_ROLES, RETRY_AFTER_SECONDS, Context, answer, unknown
from signals.delivery.wanted import Drills
from signals.delivery.webhooks.desk import TooManyWebhooksError, Wanted, WebhookDesk
from signals.delivery.webhooks.sender import system_lookup
from signals.delivery.webhooks.targets import TargetError
from signals.delivery.webhooks.view import UnknownWebhookError, WebhookStatus
from signals.delivery.webhooks.words import ROLLOUTS_MAX, URL_CHARACTERS_MAX, AttemptWord, DeadDelivery

BODY_BYTES_MAX = 16_384
LOOKUP_SECONDS = 5.0

_Result = TypeVar("_Result")
_Names = Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=ROLLOUTS_MAX)]


class WebhookBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a webhook should be; in a change, what is left out stays as it is.

    Attributes:
        url: where events are posted: https, and no address inside unless `webhook_private_targets` lists its network.
        note: what it is for, for people.
        rollouts: ids of the rollouts wanted; empty: all.
        products: `vendor/product` of the rollouts wanted; empty: all.
        scope: the part of a fleet that is meant: moves of other parts are left out.
        drills: whether events of drills are sent; by default not.
        enabled: false pauses it; what it misses is sent once it is enabled.
        start: the first event it gets: the next one, or the first ever. In a change: begin there anew.
    """

    url: Annotated[str, Meta(min_length=1, max_length=URL_CHARACTERS_MAX)] | None = None
    note: Annotated[str, Meta(max_length=256)] | None = None
    rollouts: _Names | None = None
    products: _Names | None = None
    scope: Scope | None = None
    drills: Drills | None = None
    enabled: bool | None = None
    start: Literal["latest", "start"] | None = None


class RedeliverBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters to deliver again.

    Attributes:
        event_id: of the one that is meant; empty: all.
    """

    event_id: Annotated[str, Meta(max_length=128)] = ""


class MadeWebhook(msgspec.Struct, kw_only=True):
    """A webhook that was just made.

    Attributes:
        webhook: as it stands.
        secret: what its posts are signed with (Standard Webhooks); it is not shown again.
    """

    webhook: WebhookStatus
    secret: str


class RotatedWebhook(msgspec.Struct, kw_only=True):
    """A new secret.

    Attributes:
        secret: what posts are signed with from now on; for a day the one before signs too.
    """

    id: str
    secret: str


class TestedWebhook(msgspec.Struct, kw_only=True):
    """How a test post ended.

    Attributes:
        word: the closed word.
        detail: the receiver's words.
    """

    id: str
    word: AttemptWord
    detail: str


class Redelivered(msgspec.Struct, kw_only=True):
    """What will be delivered again.

    Attributes:
        events: how many dead letters are meant.
    """

    id: str
    events: int


class RemovedWebhook(msgspec.Struct, kw_only=True):
    """The id of a webhook that is no more."""

    id: str


WEBHOOK = Parameter("webhook", "The webhook's id.", where="path", required=True)
_WRITE_REFUSALS = (Refusal.BAD_REQUEST, Refusal.NOT_FOUND, Refusal.OVERLOADED, Refusal.LOG_UNAVAILABLE)
_ONE = "/v1/webhooks/{webhook}"


def _operation(method: str, path: str, name: str, summary: str, said: Answer, **more: Any) -> Operation:
    parameters = (WEBHOOK,) if "{webhook}" in path else ()
    refusals = more.pop("refusals", (Refusal.NOT_FOUND,))
    return Operation(
        method, path, name, summary, (said,), roles=COMMAND_ROLES, parameters=parameters, refusals=refusals, **more
    )


OPERATIONS = (
    _operation(
        "POST",
        "/v1/webhooks",
        "create_webhook",
        "Have kill-switch events posted to a URL.",
        Answer(201, "Made; the secret is shown this once.", MadeWebhook),
        body=WebhookBody,
        refusals=(*_WRITE_REFUSALS, Refusal.BODY_TOO_LARGE),
    ),
    _operation(
        "GET",
        "/v1/webhooks",
        "webhooks",
        "Every webhook and how it fares.",
        Answer(200, "Oldest first.", list[WebhookStatus]),
    ),
    _operation("GET", _ONE, "webhook", "One webhook and how it fares.", Answer(200, "As it stands.", WebhookStatus)),
    _operation(
        "POST",
        _ONE,
        "change_webhook",
        "Change, pause or enable a webhook.",
        Answer(200, "Changed.", WebhookStatus),
        body=WebhookBody,
        refusals=(*_WRITE_REFUSALS, Refusal.BODY_TOO_LARGE),
    ),
    _operation(
        "DELETE",
        _ONE,
        "remove_webhook",
        "Remove a webhook with its dead letters.",
        Answer(200, "Removed.", RemovedWebhook),
        refusals=_WRITE_REFUSALS,
    ),
    _operation(
        "POST",
        f"{_ONE}/rotate",
        "rotate_webhook",
        "Make a new secret; for a day the one before signs too.",
        Answer(200, "The new secret is shown this once.", RotatedWebhook),
        refusals=_WRITE_REFUSALS,
    ),
    _operation(
        "POST",
        f"{_ONE}/test",
        "test_webhook",
        "Post an event of type io.cordon.webhook.test.v1, which says nothing, once.",
        Answer(200, "How that ended, whatever it was.", TestedWebhook),
    ),
    _operation(
        "GET",
        f"{_ONE}/dead",
        "dead_webhook_events",
        "The events that a webhook would not take.",
        Answer(200, "Oldest first.", list[DeadDelivery]),
    ),
    _operation(
        "POST",
        f"{_ONE}/redeliver",
        "redeliver_webhook_events",
        "Deliver one dead letter again, or all of them.",
        Answer(202, "Asked.", Redelivered),
        body=RedeliverBody,
        refusals=(*_WRITE_REFUSALS, Refusal.BODY_TOO_LARGE),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes."""
    counter = _Counter(context)
    handlers = {
        "create_webhook": counter.create,
        "webhooks": counter.every,
        "webhook": counter.one,
        "change_webhook": counter.change,
        "remove_webhook": counter.remove,
        "rotate_webhook": counter.rotate,
        "test_webhook": counter.test,
        "dead_webhook_events": counter.dead,
        "redeliver_webhook_events": counter.redeliver,
    }
    return [
        Route(operation.path, counter.guarded(handlers[operation.name]), methods=[operation.method])
        for operation in OPERATIONS
    ]


class _Counter:
    """Takes requests to the desk, and its errors back as refusals."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def guarded(
        self, handle: Callable[[Request, WebhookDesk], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            self._context.principal(request, COMMAND_ROLES)
            desk = self._context.webhooks
            if desk is None:
                raise RequestRefusedError(Refusal.NOT_FOUND, "this listener has no webhooks")
            try:
                return await handle(request, desk)
            except UnknownWebhookError as error:
                raise RequestRefusedError(Refusal.NOT_FOUND, str(error)) from error
            except TargetError as error:
                raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
            except TooManyWebhooksError as error:
                raise RequestRefusedError(Refusal.OVERLOADED, str(error), RETRY_AFTER_SECONDS) from error
            except LogUnavailableError as error:
                raise RequestRefusedError(
                    Refusal.LOG_UNAVAILABLE, f"the log did not take it: {error}", RETRY_AFTER_SECONDS
                ) from error

        return run

    async def create(self, request: Request, desk: WebhookDesk) -> Response:
        principal = self._context.principal(request, COMMAND_ROLES)
        wanted = await self._wanted(request, desk)
        if wanted.url is None:
            raise RequestRefusedError(Refusal.BAD_REQUEST, 'no url: send {"url": "https://HOST/PATH"}')
        webhook, secret = await asyncio.to_thread(desk.create, wanted, principal.name)
        return answer(MadeWebhook(webhook=webhook, secret=secret), 201)

    async def every(self, _request: Request, desk: WebhookDesk) -> Response:
        return answer(desk.view.every())

    async def one(self, request: Request, desk: WebhookDesk) -> Response:
        return answer(desk.view.get(_name(request)))

    async def change(self, request: Request, desk: WebhookDesk) -> Response:
        desk.view.known(_name(request))
        wanted = await self._wanted(request, desk)
        return answer(await asyncio.to_thread(desk.change, _name(request), wanted))

    async def remove(self, request: Request, desk: WebhookDesk) -> Response:
        await asyncio.to_thread(desk.remove, _name(request))
        return answer(RemovedWebhook(id=_name(request)))

    async def rotate(self, request: Request, desk: WebhookDesk) -> Response:
        secret = await asyncio.to_thread(desk.rotate, _name(request))
        return answer(RotatedWebhook(id=_name(request), secret=secret))

    async def test(self, request: Request, desk: WebhookDesk) -> Response:
        result = await desk.test(_name(request))
        return answer(TestedWebhook(id=_name(request), word=result.word, detail=result.detail))

    async def dead(self, request: Request, desk: WebhookDesk) -> Response:
        return answer(desk.view.dead(_name(request)))

    async def redeliver(self, request: Request, desk: WebhookDesk) -> Response:
        body = await _body(request, RedeliverBody)
        events = await asyncio.to_thread(desk.redeliver, _name(request), body.event_id)
        return answer(Redelivered(id=_name(request), events=events), 202)

    async def _wanted(self, request: Request, desk: WebhookDesk) -> Wanted:
        body = await _body(request, WebhookBody)
        for rollout in body.rollouts or []:
            if not self._context.service.views.knows(rollout):
                raise unknown(rollout)
        for product in body.products or []:
            if len(product.split("/")) != 2:
                raise RequestRefusedError(Refusal.BAD_REQUEST, f"product {product[:100]!r}: write VENDOR/PRODUCT")
        if body.scope is not None:
            self._check_scope(body.scope, body.rollouts or [])
        if body.url is not None:
            await _check_target(desk, body.url)
        return msgspec.convert(body, Wanted, from_attributes=True)

    def _check_scope(self, scope: Scope, rollouts: Sequence[str]) -> None:
        """Refuse a part that can't be: stops of the part that was meant would never be posted."""
        if scope.os_build and not os_build_ok(scope.os_build):
            raise RequestRefusedError(
                Refusal.BAD_REQUEST,
                f"os_build {scope.os_build!r}: write a build and optional revision, such as 22631.3880",
            )
        facts = [self._context.service.views.facts(rollout) for rollout in rollouts]
        declared = [ring.name for one in facts if one and one.declared for ring in one.declared.rings]
        if scope.ring and rollouts and scope.ring not in declared:
            rings = ", ".join(dict.fromkeys(declared)) or "none"
            raise RequestRefusedError(
                Refusal.BAD_REQUEST, f"none of these rollouts has a ring {scope.ring!r}: they declare {rings}"
            )


def _name(request: Request) -> str:
    return str(request.path_params["webhook"])


async def _check_target(desk: WebhookDesk, url: str) -> None:
    host, parts = desk.policy.check_url(url), urlsplit(url)
    tls = parts.scheme == "https"
    try:
        addresses = await asyncio.wait_for(system_lookup(host, parts.port or (443 if tls else 80)), LOOKUP_SECONDS)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise TargetError(f"{host} can't be resolved: {str(error) or 'no answer in time'}") from error
    desk.policy.check_addresses(host, addresses, tls=tls)


async def _body(request: Request, kind: type[_Result]) -> _Result:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"a webhook has at most {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (*UNREADABLE_ERRORS, ScopeError) as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
