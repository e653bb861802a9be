"""The streams listener's OpenAPI document: every path is declared, nothing else, and answers look as it says."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from ingest.openapi import document
from ingest.operations import Answer, Operation
from signals.delivery.app import described
from support.leases import declare_rings
from support.openapi import METHODS, check_answer
from support.streams import APPROVER, OPERATOR, READER, REPORTER, VIEWER, StreamRig, streaming
from support.switches import ROLLOUT

DOCUMENT = described()
NAMES = (ROLLOUT, "r-typo")
BODIES = (b"", b"{}", b"[]", b'{"reason": "odd"}', b"\xff", b" " * 70_000)
# A body that is refused before it is read ends its connection.
ALONE = {"connection": "close"}


@pytest.fixture(scope="module")
def rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind but commands."""
    with streaming() as running:
        declare_rings(running)
        yield running


@pytest.fixture(scope="module")
def served(rig: StreamRig) -> set[tuple[str, str]]:
    """Return method and path of every route of the running application."""
    return {
        (method, route.path)
        for route in rig.app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_every_served_path_is_declared_and_every_declared_one_is_served(served: set[tuple[str, str]]) -> None:
    declared = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in METHODS & set(item)}
    assert served - declared == set(), "declare these in OPERATIONS of their module"
    assert declared - served == set(), "nothing serves these"


def test_the_document_is_served_without_a_token_and_is_openapi(rig: StreamRig) -> None:
    answer = httpx2.get(f"{rig.url}/v1/openapi.json")
    assert answer.json() == DOCUMENT
    validate(answer.json())


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in sorted(METHODS & set(item)):
            yield method.upper(), path, item[method]


@pytest.mark.parametrize(
    ("method", "path", "operation"), list(operations()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_whatever_is_asked_is_answered_as_declared(
    rig: StreamRig, method: str, path: str, operation: dict[str, Any]
) -> None:
    """By everybody and nobody, on things that are and are not, with bodies and parameters that mean nothing.

    The client of the rig holds every answer to the document, here and in every other test.
    """
    urls = {path.replace("{rollout}", name).replace("{key}", name).replace("{webhook}", name) for name in NAMES}
    seen = set()
    for token in (OPERATOR, APPROVER, VIEWER, REPORTER, "nobody"):
        with rig.http(token) as http:
            for url in sorted(urls):
                if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
                    with http.stream(method, url) as stream:
                        seen.add(stream.status_code)
                    continue
                bodies: Sequence[bytes | None] = BODIES if "requestBody" in operation else (None,)
                # Who may not ask at all is told so before anything is read.
                bodies = bodies if token in (OPERATOR, APPROVER) else bodies[:1]
                asked = [(url, body) for body in bodies] + [(f"{url}?nonsense=1", bodies[0])]
                seen |= {http.request(method, to, content=body, headers=ALONE).status_code for to, body in asked}
    secured = "security" in operation
    assert {401, 403} <= seen if secured else not {401, 403} & seen


def test_a_mistake_in_a_declaration_is_found() -> None:
    twice = Operation("GET", "/a", "a", "One.", (Answer(200, "It is."),))
    with pytest.raises(ValueError, match="share a name"):
        document("t", "", [twice, Operation("GET", "/b", "a", "Two.", (Answer(200, "It is."),))])
    with pytest.raises(ValueError, match="declares the parameters"):
        document("t", "", [Operation("GET", "/a/{b}", "a", "One.", (Answer(200, "It is."),))])


def test_an_answer_that_is_not_as_declared_is_found(rig: StreamRig) -> None:
    with rig.http(READER) as http:
        answer = http.get("/v1/verdicts")
        for path, says in (("/v1/keys", "application/jwk-set"), ("/v1/sight", "seeing")):
            with pytest.raises(AssertionError, match=says):
                check_answer(DOCUMENT, "GET", path, answer)
        with pytest.raises(AssertionError, match="not declared"):
            check_answer(DOCUMENT, "GET", "/v1/keys", http.get("/v1/verdicts?x=1"))
