"""How a path of an HTTP listener is declared: what it takes, what it answers, who may ask.

Declared beside the handlers, turned into an OpenAPI document by `ingest.openapi`, and compared with the running routes
by a test. The invariant: a path is served if and only if it is declared.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ingest.outcome import Refusal

JSON = "application/json"


class RefusalAnswer(msgspec.Struct, kw_only=True):
    """Why a request was refused.

    Attributes:
        reason: the closed word, which is the label of `cordon_requests_refused_total` as well.
        detail: what was wrong and what to do next, for a person.
    """

    reason: Refusal
    detail: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path, the query or the headers.

    Attributes:
        doc: what it means.
        kind: its type, as msgspec knows types: `str`, `Literal["a", "b"]`, `Annotated[int, Meta(ge=1, le=500)]`.
        repeated: it may come more than once, and every one counts.
    """

    name: str
    doc: str
    kind: Any = str
    where: Literal["path", "query", "header"] = "query"
    required: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that is no refusal.

    Attributes:
        doc: when it is given.
        body: the type that is encoded, as msgspec knows types; None for an empty body or one that is no JSON.
        media: its Content-Type; empty where there is no body.
        headers: what stands in which header.
    """

    status: int
    doc: str
    body: Any = None
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: in capitals.
        path: as Starlette's route has it; `{name}` needs a parameter of the path.
        name: the operation's id, unique in its listener.
        summary: what it does, in one sentence.
        answers: what is answered when nothing is refused, the usual one first.
        roles: of which the token needs one; none for a path that needs no token.
        parameters: of path, query and headers.
        body: the type that is decoded from the request, None where there is none.
        body_media: what Content-Types the body may have.
        refusals: why it is refused, beside an unknown token and a missing role.
        description: more than the summary, in CommonMark.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: tuple[Answer, ...]
    roles: Collection[str] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_media: tuple[str, ...] = (JSON,)
    refusals: tuple[Refusal, ...] = ()
    description: str = ""


# What most paths of a rollout take.
ROLLOUT = Parameter("rollout", "The rollout's id.", where="path", required=True)
