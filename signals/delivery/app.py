"""The streams listener: verdicts, keys, commands and the event stream over HTTP.

Handlers decide nothing: they read views, and a person's word becomes a record of the commands topic. Invariants: an
unknown rollout is a 404 and never a default; nothing is answered without a known token but health and public keys.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.clock import Clock
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import Entry, LogUnavailableError
from ingest.outcome import Refusal
from ingest.sight import SightSource
from ingest.topics import keyed_partition_of
from signals.delivery.cursor import CursorError
from signals.delivery.service import StreamService
from signals.events import Action, Command
from signals.killswitch.machine import CommandResult

READ_ROLES = frozenset({"rollout", "operator"})
COMMAND_ROLES = frozenset({"operator"})
COMMAND_BYTES_MAX = 16_384
VERDICTS_LISTED_MAX = 500
WAIT_SECONDS = 2.0
RETRY_AFTER_SECONDS = 2
_POLL_SECONDS = 0.01


class PrincipalLike(Protocol):
    """Who a token speaks for."""

    @property
    def name(self) -> str:
        """Return the token's name, for the trail."""
        ...

    @property
    def roles(self) -> Collection[str]:
        """Return what the token may do."""
        ...


Authenticate = Callable[[str | None], PrincipalLike | None]


class CommandBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/hold`, `kill` and `release`.

    Attributes:
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post harmless; one is made where it is missing.
    """

    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    name: Annotated[str, Meta(max_length=60)] = ""
    command_id: Annotated[str, Meta(max_length=64)] = ""


def streams_app(
    service: StreamService, authenticate: Authenticate, clock: Clock, sight: SightSource | None = None
) -> Starlette:
    """Return the application of the streams listener.

    Args:
        service: its live side; the application starts and stops it with its lifespan.
        authenticate: gives the principal of an `Authorization` header, or None.
        clock: stamps commands.
        sight: whether Cordon sees; None where nobody watches, and `/v1/sight` is not served.
    """
    handlers = _Handlers(service, authenticate, clock, sight)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    commands = [
        Route(f"/v1/rollouts/{{rollout}}/{action.value}", handlers.command(action), methods=["POST"])
        for action in Action
    ]
    routes = [
        Route("/healthz", handlers.healthz),
        Route("/v1/keys", handlers.keys),
        Route("/v1/killswitch/stream", handlers.stream),
        Route("/v1/verdicts", handlers.verdicts),
        Route("/v1/rollouts/{rollout}/verdict", handlers.verdict),
        *commands,
    ]
    if sight is not None:
        routes.append(Route("/v1/sight", handlers.sight))
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={RequestRefusedError: handlers.refused, HTTPException: handlers.http_error},
    )


class _Handlers:
    def __init__(
        self, service: StreamService, authenticate: Authenticate, clock: Clock, sight: SightSource | None
    ) -> None:
        self._service = service
        self._authenticate = authenticate
        self._clock = clock
        self._sight = sight

    async def healthz(self, _request: Request) -> Response:
        return _json({"ok": True})

    async def keys(self, _request: Request) -> Response:
        return Response(self._service.keys.to_json(), media_type="application/jwk-set+json")

    async def sight(self, request: Request) -> Response:
        assert self._sight is not None
        self._principal(request, READ_ROLES)
        return _json(self._sight.sight())

    async def verdict(self, request: Request) -> Response:
        self._principal(request, READ_ROLES)
        rollout = request.path_params["rollout"]
        found = self._service.views.verdict(rollout)
        if found is None:
            raise _unknown(rollout)
        return _json(found)

    async def verdicts(self, request: Request) -> Response:
        self._principal(request, READ_ROLES)
        return _json({"verdicts": self._service.views.newest(VERDICTS_LISTED_MAX)})

    async def stream(self, request: Request) -> Response:
        self._principal(request, READ_ROLES)
        query = request.query_params
        if unknown := set(query) - {"rollout", "from", "last_event_id"}:
            raise RequestRefusedError(Refusal.BAD_REQUEST, f"no such parameter: {', '.join(sorted(unknown))[:100]}")
        rollout = query.get("rollout")
        if rollout is not None and not self._service.views.knows(rollout):
            raise _unknown(rollout)
        try:
            last_event_id = request.headers.get("last-event-id") or query.get("last_event_id")
            # Kafka is asked for the log's ends, and may take its time.
            place = await asyncio.to_thread(self._service.place, last_event_id, query.get("from", "latest"))
        except CursorError as error:
            raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
        except LogUnavailableError as error:
            raise RequestRefusedError(
                Refusal.LOG_UNAVAILABLE, f"the log can't be read now: {error}", RETRY_AFTER_SECONDS
            ) from error
        if self._service.hub.closed:
            raise RequestRefusedError(Refusal.DRAINING, "this process is stopping: connect again", RETRY_AFTER_SECONDS)
        subscriber = self._service.hub.admit(rollout.encode() if rollout is not None else None)
        if subscriber is None:
            raise RequestRefusedError(
                Refusal.OVERLOADED, "as many streams are open as may be (stream_subscribers_max)", RETRY_AFTER_SECONDS
            )
        return self._service.streams.response(subscriber, place)

    def command(self, action: Action) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            principal = self._principal(request, COMMAND_ROLES)
            rollout = request.path_params["rollout"]
            body = await _command_body(request)
            await self._known(rollout)
            command = Command(
                command_id=body.command_id or secrets.token_hex(16),
                rollout=rollout,
                action=action,
                name=f"{body.name} ({principal.name})" if body.name else principal.name,
                reason=body.reason,
                at_ms=self._clock.now_ms(),
            )
            await self._append(command)
            result = None
            if request.query_params.get("wait", "0") not in ("0", ""):
                result = await self._result(command.command_id)
            return self._answer(command, result)

        return handle

    async def refused(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestRefusedError)
        self._service.metrics.count("requests_refused_total", reason=error.reason.value)
        headers = {} if error.retry_after_seconds is None else {"retry-after": str(error.retry_after_seconds)}
        if error.reason is Refusal.UNAUTHENTICATED:
            headers["www-authenticate"] = "Bearer"
        return _json({"reason": error.reason.value, "detail": error.detail}, error.status, headers)

    async def http_error(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = Refusal.NOT_FOUND if error.status_code == 404 else Refusal.BAD_REQUEST
        return _json({"reason": reason.value, "detail": error.detail}, error.status_code, dict(error.headers or {}))

    def _principal(self, request: Request, roles: Collection[str]) -> PrincipalLike:
        principal = self._authenticate(request.headers.get("authorization"))
        if principal is None:
            raise RequestRefusedError(Refusal.UNAUTHENTICATED, "send `Authorization: Bearer TOKEN` with a known token")
        if not any(role in roles for role in principal.roles):
            raise RequestRefusedError(
                Refusal.FORBIDDEN, f"token {principal.name!r} has none of the roles {', '.join(sorted(roles))}"
            )
        return principal

    async def _known(self, rollout: str) -> None:
        # A rollout declared a moment ago may not have reached the view yet.
        for _ in range(50):
            if self._service.views.knows(rollout):
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise _unknown(rollout)

    async def _append(self, command: Command) -> None:
        topics = self._service.topics
        partition = keyed_partition_of(command.rollout, topics.keyed_partitions)
        entry = Entry(topics.name("commands"), partition, command.rollout.encode(), encoder.encode(command))
        try:
            await asyncio.to_thread(self._service.log.append, [entry])
        except LogUnavailableError as error:
            raise RequestRefusedError(
                Refusal.LOG_UNAVAILABLE, f"nothing was asked: {error}", RETRY_AFTER_SECONDS
            ) from error

    async def _result(self, command_id: str) -> str | None:
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while (result := self._service.views.command(command_id)) is None:
            if asyncio.get_running_loop().time() >= deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return result

    def _answer(self, command: Command, result: str | None) -> Response:
        answer: dict[str, Any] = {"command_id": command.command_id, "rollout": command.rollout, "result": result}
        if result is None:
            return _json(answer, 202)
        joined = self._service.views.verdict(command.rollout)
        if joined is not None:
            answer |= {"state": joined.state, "decision": joined.decision, "number": joined.number}
        return _json(answer, 200 if result == CommandResult.APPLIED else 409)


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encoder.encode(answer), status, headers, media_type="application/json")


def _unknown(rollout: str) -> RequestRefusedError:
    return RequestRefusedError(Refusal.NOT_FOUND, f"no rollout {rollout[:64]!r} is known here: check the id")


async def _command_body(request: Request) -> CommandBody:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > COMMAND_BYTES_MAX:
            raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"a command has at most {COMMAND_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=CommandBody)
    except UNREADABLE_ERRORS as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f'{error}; send {{"reason": "..."}}') from error
