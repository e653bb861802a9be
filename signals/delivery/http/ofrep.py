"""OFREP: any OpenFeature SDK reads a rollout's switch as a boolean flag.

The OpenFeature Remote Evaluation Protocol 0.3. The flag's key is the rollout's id, its value whether the rollout may
proceed, its variant the decision. Invariant: an unknown rollout and a part that can't be are errors, for which an SDK
returns the default of its caller; that default has to be false.
"""

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from detectors.drill import is_drill
from detectors.verdict import DecisionWord
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.operations import Answer, Operation, Parameter
from ingest.outcome import Refusal
from signals.delivery.answers import TARGET_FIELDS, TargetError, target_of
from signals.delivery.http.body import read_body
from signals.delivery.http.context import READ_ROLES, Context, answer
from signals.delivery.joined import Facts

BODY_BYTES_MAX = 65_536
FLAGS_MAX = 500


class FlagRequest(msgspec.Struct, kw_only=True):
    """What an OpenFeature provider posts.

    Attributes:
        context: the evaluation context; `ring`, `os_build`, `model` and `tenant` name the part of the rollout that is
            meant, and all else is ignored.
    """

    context: Annotated[dict[str, Any], Meta(max_length=256)] = {}


class Flag(msgspec.Struct, kw_only=True):
    """A rollout's switch as a flag.

    Attributes:
        key: the rollout's id.
        value: the rollout may proceed.
        reason: OpenFeature's word for a value that was evaluated for who asks: it is not one that never changes.
        variant: what a rollout system must do.
        metadata: `reason` as a closed word, `sentence` for a person, `until_ms` when the value ends (0: not by itself).
    """

    key: str
    value: bool
    reason: Literal["TARGETING_MATCH"] = "TARGETING_MATCH"
    variant: DecisionWord
    metadata: dict[str, str | int]


class FlagFailure(msgspec.Struct, kw_only=True, rename={"error_code": "errorCode", "error_details": "errorDetails"}):
    """Why a flag has no value.

    Attributes:
        key: the rollout's id.
        error_code: OpenFeature's word.
        error_details: what was wrong, for a person.
    """

    key: str
    error_code: Literal["FLAG_NOT_FOUND", "PARSE_ERROR", "INVALID_CONTEXT"]
    error_details: str


class BulkFailure(msgspec.Struct, kw_only=True, rename={"error_code": "errorCode", "error_details": "errorDetails"}):
    """Why no flag has a value.

    Attributes:
        error_code: OpenFeature's word.
        error_details: what was wrong, for a person.
    """

    error_code: Literal["PARSE_ERROR", "INVALID_CONTEXT"]
    error_details: str


class FlagOrFailure(
    msgspec.Struct,
    kw_only=True,
    omit_defaults=True,
    rename={"error_code": "errorCode", "error_details": "errorDetails"},
):
    """One of many flags: a value, or why there is none.

    Attributes:
        key: the rollout's id.
        value: the rollout may proceed.
        reason: OpenFeature's word for how the value came about.
        variant: what a rollout system must do.
        metadata: as in a flag that is asked for alone.
        error_code: OpenFeature's word; with it, there is no value.
        error_details: what was wrong, for a person.
    """

    key: str
    value: bool | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    variant: DecisionWord | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str | int] | msgspec.UnsetType = msgspec.UNSET
    error_code: str | msgspec.UnsetType = msgspec.UNSET
    error_details: str | msgspec.UnsetType = msgspec.UNSET


class Flags(msgspec.Struct, kw_only=True):
    """The rollouts heard of last, drills left out.

    Attributes:
        flags: at most 500, by id; one whose part can't be is told with an error.
    """

    flags: list[FlagOrFailure]


_decoder = msgspec.json.Decoder(FlagRequest)
OPERATIONS = (
    Operation(
        "POST",
        "/ofrep/v1/evaluate/flags/{key}",
        "evaluate_flag",
        "A rollout's switch as a boolean flag: true is proceed.",
        (
            Answer(200, "The flag.", Flag),
            Answer(400, "The body or the context can't be understood.", FlagFailure),
            Answer(404, "No such rollout.", FlagFailure),
        ),
        roles=READ_ROLES,
        parameters=(Parameter("key", "The rollout's id.", where="path", required=True),),
        body=FlagRequest,
        refusals=(Refusal.BODY_TOO_LARGE,),
        description="OpenFeature Remote Evaluation Protocol 0.3. Set the default of your evaluation to false.",
    ),
    Operation(
        "POST",
        "/ofrep/v1/evaluate/flags",
        "evaluate_flags",
        "The switches of the rollouts heard of last, as flags.",
        (
            Answer(200, "The flags.", Flags, headers={"ETag": "Changes when any flag does."}),
            Answer(304, "None has changed since `If-None-Match`.", media="", headers={"ETag": "As it was."}),
            Answer(400, "The body or the context can't be understood.", BulkFailure),
        ),
        roles=READ_ROLES,
        parameters=(Parameter("If-None-Match", "The ETag of an earlier answer.", where="header"),),
        body=FlagRequest,
        refusals=(Refusal.BODY_TOO_LARGE,),
        description=(
            "OpenFeature Remote Evaluation Protocol 0.3. A provider that keeps these flags shows `proceed` for as long "
            "as it does not ask again, past the end of the lease: ask for one flag before each push instead."
        ),
    ),
)


def routes(context: Context) -> list[Route]:
    """Return the routes."""
    desk = _Desk(context)
    return [
        Route("/ofrep/v1/evaluate/flags/{key}", desk.one, methods=["POST"]),
        Route("/ofrep/v1/evaluate/flags", desk.all, methods=["POST"]),
    ]


class _ContextError(Exception):
    """The evaluation context or the body can't be understood."""

    def __init__(self, code: Literal["PARSE_ERROR", "INVALID_CONTEXT"], detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class _Desk:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._views = context.service.views

    async def one(self, request: Request) -> Response:
        self._context.principal(request, READ_ROLES)
        key = request.path_params["key"]
        try:
            fields = await _fields(request)
            facts = self._views.facts(key)
            if facts is None:
                self._count(Refusal.NOT_FOUND)
                detail = f"no rollout {key[:64]!r} is known here: check the id"
                return answer(FlagFailure(key=key, error_code="FLAG_NOT_FOUND", error_details=detail), 404)
            return answer(self._flag(facts, fields))
        except _ContextError as error:
            self._count(Refusal.BAD_REQUEST)
            return answer(FlagFailure(key=key, error_code=error.code, error_details=error.detail), 400)

    async def all(self, request: Request) -> Response:
        self._context.principal(request, READ_ROLES)
        try:
            fields = await _fields(request)
        except _ContextError as error:
            self._count(Refusal.BAD_REQUEST)
            return answer(BulkFailure(error_code=error.code, error_details=error.detail), 400)
        body = encoder.encode(Flags(flags=self._flags(fields)))
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, headers={"etag": tag}, media_type="application/json")

    def _flags(self, fields: dict[str, str]) -> list[FlagOrFailure]:
        made: list[FlagOrFailure] = []
        for rollout in self._views.known(FLAGS_MAX):
            facts = self._views.facts(rollout)
            if facts is None or facts.named is None or is_drill(facts.named.vendor, facts.named.product):
                continue
            try:
                flag = self._flag(facts, fields)
                made.append(FlagOrFailure(**msgspec.structs.asdict(flag)))
            except _ContextError as error:
                made.append(FlagOrFailure(key=rollout, error_code=error.code, error_details=error.detail))
        return made

    def _flag(self, facts: Facts, fields: dict[str, str]) -> Flag:
        try:
            found = self._context.answers.effective(facts, target_of(facts, fields))
        except TargetError as error:
            raise _ContextError("INVALID_CONTEXT", str(error)) from error
        return Flag(
            key=facts.rollout,
            value=found.proceed,
            variant=found.decision,
            metadata={"reason": found.reason.value, "sentence": found.sentence, "until_ms": found.until_ms},
        )

    def _count(self, reason: Refusal) -> None:
        self._context.service.metrics.count("requests_refused_total", reason=reason.value)


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of the evaluation context that name a part of a rollout."""
    data = await read_body(request, BODY_BYTES_MAX)
    try:
        said = _decoder.decode(data)
    except UNREADABLE_ERRORS as error:
        raise _ContextError("PARSE_ERROR", f"no evaluation request: {error}") from error
    fields = {name: said.context[name] for name in TARGET_FIELDS if name in said.context}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise _ContextError("INVALID_CONTEXT", f"{name} must be a text, or be left out")
    return fields
