"""Pagers: what is told to whom, and what people ask of them: mute, acknowledge, resolve, redeliver.

Handlers decide nothing: the board reads the outbox's records and writes orders. Invariant: an order on a rollout of
which nobody was ever told is a 404.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.events import UNREADABLE_ERRORS
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import LogUnavailableError
from ingest.operations import ROLLOUT, Answer, Operation
from ingest.outcome import Refusal
from signals.delivery.http.context import (
    COMMAND_ROLES,
    RETRY_AFTER_SECONDS,
    Context,
    PrincipalLike,
    answer,
    bad_parameters,
    unknown,
)
from signals.pagers.board import Ordered, PagerBoard, PagersStatus
from signals.pagers.words import OrderAction

_Body = TypeVar("_Body", bound="PagerOrderBody")

BODY_BYTES_MAX = 16_384
WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02
_ABOUT_ROLLOUT = (OrderAction.ACKNOWLEDGE, OrderAction.RESOLVE, OrderAction.REDELIVER)
_SUMMARIES = {
    OrderAction.ACKNOWLEDGE: "Tell the channels that know it that somebody has a rollout's incidents in hand.",
    OrderAction.RESOLVE: "Call a rollout's incidents over, although its switch stands.",
    OrderAction.REDELIVER: "Try again what was given up.",
}


class PagerOrderBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why something is asked of the pagers.

    Attributes:
        reason: for the trail; it goes into no page.
    """

    reason: Annotated[str, Meta(max_length=1024)] = ""


class PagerMuteBody(PagerOrderBody, kw_only=True, forbid_unknown_fields=True):
    """Who is not told for a while; of a rollout or of a vendor's incidents, one of them.

    Attributes:
        reason: for the trail; it goes into no page.
        rollout: whose incidents; empty for a vendor's.
        vendor: whose incidents, by the registry's name; empty for a rollout's.
        until_ms: when it ends, milliseconds since the epoch; a week ahead at most. 0 ends the mute now.
        kills: kills are not told either.
    """

    rollout: Annotated[str, Meta(max_length=64)] = ""
    vendor: Annotated[str, Meta(max_length=64)] = ""
    until_ms: Annotated[int, Meta(ge=0)]
    kills: bool = False


_REFUSALS = (Refusal.BAD_REQUEST, Refusal.BODY_TOO_LARGE, Refusal.LOG_UNAVAILABLE)
_TAKEN = Answer(202, "Asked; `result` is what became of it, null where that took longer than two seconds.", Ordered)

OPERATIONS = (
    Operation(
        "GET", "/v1/pagers", "pagers", "Who is told of what, what waits, what was given up, and what is muted.",
        (Answer(200, "As it stands.", PagersStatus),), roles=COMMAND_ROLES,
        refusals=(Refusal.BAD_REQUEST, Refusal.LOG_UNAVAILABLE),
    ),
    Operation(
        "POST", "/v1/pagers/mute", "mute_pagers", "Tell nobody of a rollout's or a vendor's incidents for a while.",
        (_TAKEN,), roles=COMMAND_ROLES, body=PagerMuteBody, refusals=_REFUSALS,
    ),
    *(
        Operation(
            "POST", f"/v1/pagers/{{rollout}}/{action.value}", f"{action.value}_page", _SUMMARIES[action],
            (_TAKEN,), roles=COMMAND_ROLES, parameters=(ROLLOUT,), body=PagerOrderBody,
            refusals=(*_REFUSALS, Refusal.NOT_FOUND),
        )
        for action in _ABOUT_ROLLOUT
    ),
)  # fmt: skip


def routes(context: Context) -> list[Route]:
    """Return the routes."""
    desk = _Desk(context)
    return [
        Route("/v1/pagers", desk.status),
        Route("/v1/pagers/mute", desk.mute, methods=["POST"]),
        *(
            Route(f"/v1/pagers/{{rollout}}/{action.value}", desk.order(action), methods=["POST"])
            for action in _ABOUT_ROLLOUT
        ),
    ]


class _Desk:
    def __init__(self, context: Context) -> None:
        self._context = context
        service = context.service
        self._board = PagerBoard(service.log, service.topics, context.clock)

    async def status(self, request: Request) -> Response:
        self._asked(request)
        try:
            return answer(await asyncio.to_thread(self._board.status))
        except LogUnavailableError as error:
            raise _unavailable(error) from error

    async def mute(self, request: Request) -> Response:
        principal = self._asked(request)
        body = await _read(request, PagerMuteBody)
        if bool(body.rollout) == bool(body.vendor):
            raise RequestRefusedError(Refusal.BAD_REQUEST, "name a rollout or a vendor, one of them")
        action = OrderAction.MUTE if body.until_ms else OrderAction.UNMUTE
        return await self._order(
            action, principal.name, rollout=body.rollout, vendor=body.vendor, reason=body.reason,
            until_ms=body.until_ms, kills=body.kills,
        )  # fmt: skip

    def order(self, action: OrderAction) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            principal = self._asked(request)
            rollout = request.path_params["rollout"]
            body = await _read(request, PagerOrderBody)
            try:
                known = await asyncio.to_thread(self._board.knows, rollout)
            except LogUnavailableError as error:
                raise _unavailable(error) from error
            if not known:
                raise unknown(rollout)
            return await self._order(action, principal.name, rollout=rollout, reason=body.reason)

        return handle

    def _asked(self, request: Request) -> PrincipalLike:
        principal = self._context.principal(request, COMMAND_ROLES)
        if (refused := bad_parameters(request, ())) is not None:
            raise refused
        return principal

    async def _order(self, action: OrderAction, name: str, *, rollout: str, vendor: str = "", reason: str,
                     until_ms: int = 0, kills: bool = False) -> Response:  # fmt: skip
        try:
            order_id = await asyncio.to_thread(
                lambda: self._board.order(
                    action, name, rollout=rollout, vendor=vendor, reason=reason, until_ms=until_ms, kills=kills
                )
            )
            result = await self._result(order_id)
        except LogUnavailableError as error:
            raise _unavailable(error) from error
        return answer(Ordered(order_id=order_id, result=result), 202)

    async def _result(self, order_id: str) -> str | None:
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while (result := await asyncio.to_thread(self._board.result, order_id)) is None:
            if asyncio.get_running_loop().time() >= deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return result


def _unavailable(error: LogUnavailableError) -> RequestRefusedError:
    return RequestRefusedError(Refusal.LOG_UNAVAILABLE, f"the log can't be used now: {error}", RETRY_AFTER_SECONDS)


async def _read(request: Request, kind: type[_Body]) -> _Body:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"an order has at most {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except UNREADABLE_ERRORS as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, str(error)) from error
