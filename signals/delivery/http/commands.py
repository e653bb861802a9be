"""What people ask for: a post becomes a record of the commands topic, and what became of it is read from the switches.

Invariant: handlers decide nothing but who may ask, and whether what is asked for can be read.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable

import msgspec
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
from signals.delivery.http.command_bodies import (
    BODIES,
    ApproveBody,
    Body,
    CommandAnswer,
    PendingReleases,
    ReleaseBody,
    scope_of,
    until_of,
)
from signals.delivery.http.context import (
    APPROVE_ROLES,
    COMMAND_ROLES,
    READ_ROLES,
    RETRY_AFTER_SECONDS,
    Context,
    PrincipalLike,
    answer,
    bad_parameters,
    unknown,
)
from signals.delivery.joined import Facts
from signals.events import Action, Command, SwitchState
from signals.killswitch.approvals import MARK
from signals.killswitch.results import CommandResult

BODY_BYTES_MAX = 16_384
WAIT_SECONDS = 2.0
# Of an id that was given so much stands in the command's own, which has 64 characters at most.
ID_SHOWN = 46
_POLL_SECONDS = 0.01
ACTIONS = tuple(BODIES)
# Ends of lines, the terminal's own, and marks that turn the direction of writing: in a log or a trail they would let
# one person's words pose as another's.
_NOT_ONE_LINE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")
_SUMMARIES = {
    Action.HOLD: "Hold the rollout, or a part of it, until then or until a release.",
    Action.KILL: "Kill the rollout, or a part of it; only a release ends it.",
    Action.RELEASE: "Release a hold; of a kill: ask for the release, which a second person approves.",
    Action.APPROVE: "Approve a release of a kill that another person asked for.",
    Action.MUTE: "Have the detector's word move nothing for a while; its own holds end.",
    Action.DRY_RUN: "Have the detector's word bind nobody: its events are marked; its own holds end.",
    Action.ARM: "Have the detector's word bind again, its latest one at once.",
}


def path_of(action: Action) -> str:
    """Return the last part of an action's path."""
    return action.value.replace("_", "-")


def roles_of(action: Action) -> frozenset[str]:
    """Return the roles of which a person needs one to ask for that."""
    return APPROVE_ROLES if action is Action.APPROVE else COMMAND_ROLES


OPERATIONS = (
    *(
        Operation(
            "POST",
            f"/v1/rollouts/{{rollout}}/{path_of(action)}",
            action.value,
            _SUMMARIES[action],
            (
                Answer(
                    202, "Asked; what became of it is not known yet, or a second person has to agree.", CommandAnswer
                ),
                Answer(200, "With `wait`: the switch moved, and an event says so.", CommandAnswer),
                Answer(409, "With `wait`: nothing moved, and `result` says why.", CommandAnswer),
            ),
            roles=roles_of(action),
            parameters=(ROLLOUT, Parameter("wait", "Anything but 0: wait up to 2 s for the result.")),
            body=body,
            refusals=(Refusal.BAD_REQUEST, Refusal.NOT_FOUND, Refusal.BODY_TOO_LARGE, Refusal.LOG_UNAVAILABLE),
        )
        for action, body in BODIES.items()
    ),
    Operation(
        "GET",
        "/v1/approvals",
        "approvals",
        "The releases of a kill that wait for a second person.",
        (Answer(200, "Oldest first.", PendingReleases),),
        roles=READ_ROLES,
        refusals=(Refusal.BAD_REQUEST,),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes: one for each action, and what waits for approval."""
    desk = CommandDesk(context)
    return [
        *(
            Route(f"/v1/rollouts/{{rollout}}/{path_of(action)}", desk.command(action), methods=["POST"])
            for action in ACTIONS
        ),
        Route("/v1/approvals", desk.approvals),
    ]


class CommandDesk:
    """Takes down what people ask for; the one way to it, for the routes here and for the console."""

    def __init__(self, context: Context) -> None:
        """Take what every route needs."""
        self._context = context
        self._service = context.service

    async def ask(
        self, action: Action, principal: PrincipalLike, body: Body, rollout: str, *, wait: bool
    ) -> tuple[Command, str | None]:
        """Append what a person asks for.

        Args:
            action: what is asked for.
            principal: who asks; that the role allows it was checked.
            body: in that person's words.
            rollout: what it is about.
            wait: wait up to two seconds for what becomes of it.

        Returns:
            The command, and what became of it; None where that was not waited for, or is not known yet.

        Raises:
            RequestRefusedError: the reason is blank or no line, the rollout is unknown, the part can't be one, or the
                log does not take it.
        """
        _require_words(body)
        command = self._command(action, principal, body, await self._facts(rollout))
        await self._append(command)
        return command, await self._result(command.command_id) if wait else None

    def command(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler of one action."""

        async def handle(request: Request) -> Response:
            principal = self._context.principal(request, roles_of(action))
            if (refused := bad_parameters(request, {"wait"})) is not None:
                raise refused
            body = await _read(request, BODIES[action])
            wait = request.query_params.get("wait", "0") not in ("0", "")
            command, result = await self.ask(action, principal, body, request.path_params["rollout"], wait=wait)
            return self._answer(command, result)

        return handle

    async def approvals(self, request: Request) -> Response:
        """Answer what waits for a second person."""
        self._context.principal(request, READ_ROLES)
        if (refused := bad_parameters(request, ())) is not None:
            raise refused
        return answer(PendingReleases(pending=self._service.views.pending()))

    def _command(self, action: Action, principal: PrincipalLike, body: Body, facts: Facts) -> Command:
        now_ms = self._context.clock.now_ms()
        command = Command(
            command_id="",
            rollout=facts.rollout,
            action=action,
            name=f"{body.name} ({principal.name})" if body.name else principal.name,
            reason=body.reason,
            at_ms=now_ms,
            principal=principal.name,
            roles=sorted(principal.roles),
            scope=scope_of(body, facts),
            until_ms=until_of(body, now_ms),
            break_glass=isinstance(body, ReleaseBody) and body.break_glass,
        )
        if isinstance(body, ApproveBody):
            command.approves = body.command_id
            # The same approval posted again is the same command.
            command.command_id = _digest(principal.name, facts.rollout, body.command_id)[:32]
        else:
            command.command_id = _own_id(body.command_id, command) if body.command_id else secrets.token_hex(16)
        return command

    async def _facts(self, rollout: str) -> Facts:
        # A rollout declared a moment ago may not have reached the view yet.
        for _ in range(50):
            if (facts := self._service.views.facts(rollout)) is not None:
                return facts
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
        switch = self._service.views.switch(command.rollout)
        said.state, said.number = (switch.state, switch.number) if switch else (SwitchState.OBSERVING, 0)
        said.decision = switch.decision if switch else DecisionWord.UNKNOWN
        status = {CommandResult.APPLIED.value: 200, CommandResult.PENDING.value: 202}.get(result, 409)
        return answer(said, status)


def _require_words(body: Body) -> None:
    if not body.reason.strip():
        raise RequestRefusedError(Refusal.BAD_REQUEST, "the reason is blank: say why, in words that others understand")
    if _NOT_ONE_LINE.search(body.reason + body.name):
        raise RequestRefusedError(
            Refusal.BAD_REQUEST, "reason and name are one line each: without line breaks and control characters"
        )


def _own_id(given: str, command: Command) -> str:
    """Return the id of a command that was given one: whoever uses it for something else means another command."""
    about = _digest(given, command.action.value, command.rollout, command.scope.text)
    return f"{given[:ID_SHOWN]}{MARK}{about[:16]}"


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


async def _read(request: Request, kind: type[Body]) -> Body:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"a command has at most {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE_ERRORS as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f'{error}; send {{"reason": "..."}}') from error
