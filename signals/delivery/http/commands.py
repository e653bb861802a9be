"""What people ask for: a post becomes a record of the commands topic, and what became of it is read from the switches.

Invariant: handlers decide nothing but who may ask.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from detectors.verdict import DecisionWord
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import Entry, LogUnavailableError
from ingest.operations import ROLLOUT, Answer, Operation, Parameter
from ingest.outcome import Refusal
from ingest.topics import keyed_partition_of
from signals.delivery.http.context import COMMAND_ROLES, RETRY_AFTER_SECONDS, Context, answer, unknown
from signals.events import Action, Command, SwitchState
from signals.killswitch.results import CommandResult

BODY_BYTES_MAX = 16_384
WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.01
# The actions that a person may ask for today.
ACTIONS = (Action.HOLD, Action.KILL, Action.RELEASE)


class CommandBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts/{id}/hold`, `kill` and `release`.

    Attributes:
        name: who asks, when a token is shared; the token's own name is put beside it.
        command_id: makes a repeated post harmless; one is made where it is missing.
    """

    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    name: Annotated[str, Meta(max_length=60)] = ""
    command_id: Annotated[str, Meta(max_length=64)] = ""


class CommandAnswer(msgspec.Struct, kw_only=True):
    """What became of a command.

    Attributes:
        result: a word of the results of commands; null where it was not waited for, or not known in time.
        state: where the switch stands, once the result is known.
        decision: what a rollout system must do, once the result is known.
        number: of the switch's last event, once the result is known.
    """

    command_id: str
    rollout: str
    result: str | None
    state: SwitchState | msgspec.UnsetType = msgspec.UNSET
    decision: DecisionWord | msgspec.UnsetType = msgspec.UNSET
    number: int | msgspec.UnsetType = msgspec.UNSET


OPERATIONS = tuple(
    Operation(
        "POST",
        f"/v1/rollouts/{{rollout}}/{action.value}",
        action.value,
        f"Ask for {action.value}, with a reason.",
        (
            Answer(202, "Asked; what became of it is not known yet.", CommandAnswer),
            Answer(200, "With `wait`: the switch moved, and an event says so.", CommandAnswer),
            Answer(409, "With `wait`: nothing moved, and `result` says why.", CommandAnswer),
        ),
        roles=COMMAND_ROLES,
        parameters=(ROLLOUT, Parameter("wait", "Anything but 0: wait up to 2 s for the result.")),
        body=CommandBody,
        refusals=(Refusal.BAD_REQUEST, Refusal.NOT_FOUND, Refusal.BODY_TOO_LARGE, Refusal.LOG_UNAVAILABLE),
    )
    for action in ACTIONS
)


def routes(context: Context) -> list[Route]:
    """Return the routes, one for each action."""
    desk = _Desk(context)
    return [
        Route(f"/v1/rollouts/{{rollout}}/{action.value}", desk.command(action), methods=["POST"]) for action in ACTIONS
    ]


class _Desk:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._service = context.service

    def command(self, action: Action) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            principal = self._context.principal(request, COMMAND_ROLES)
            rollout = request.path_params["rollout"]
            body = await _command_body(request)
            await self._known(rollout)
            command = Command(
                command_id=body.command_id or secrets.token_hex(16),
                rollout=rollout,
                action=action,
                name=f"{body.name} ({principal.name})" if body.name else principal.name,
                reason=body.reason,
                at_ms=self._context.clock.now_ms(),
                principal=principal.name,
                roles=sorted(principal.roles),
            )
            await self._append(command)
            result = None
            if request.query_params.get("wait", "0") not in ("0", ""):
                result = await self._result(command.command_id)
            return self._answer(command, result)

        return handle

    async def _known(self, rollout: str) -> None:
        # A rollout declared a moment ago may not have reached the view yet.
        for _ in range(50):
            if self._service.views.knows(rollout):
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise unknown(rollout)

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
        said = CommandAnswer(command_id=command.command_id, rollout=command.rollout, result=result)
        if result is None:
            return answer(said, 202)
        joined = self._service.views.verdict(command.rollout)
        if joined is not None:
            said.state, said.decision, said.number = joined.state, joined.decision, joined.number
        return answer(said, 200 if result == CommandResult.APPLIED else 409)


async def _command_body(request: Request) -> CommandBody:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"a command has at most {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=CommandBody)
    except UNREADABLE_ERRORS as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f'{error}; send {{"reason": "..."}}') from error
