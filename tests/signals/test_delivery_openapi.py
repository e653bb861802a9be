"""The streams listener's OpenAPI document: every path is declared, and nothing else."""

import httpx2
import pytest
from starlette.routing import Route

from signals.delivery.app import described
from support.streams import streaming

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module")
def served() -> set[tuple[str, str]]:
    """Return method and path of every route of the running application."""
    with streaming() as rig:
        return {
            (method, route.path)
            for route in rig.app.routes
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
        }


def test_every_served_path_is_declared_and_every_declared_one_is_served(served: set[tuple[str, str]]) -> None:
    declared = {(method.upper(), path) for path, item in described()["paths"].items() for method in METHODS & set(item)}
    assert served - declared == set(), "declare these in OPERATIONS of their module"
    assert declared - served == set(), "nothing serves these"


def test_the_document_is_served_without_a_token() -> None:
    with streaming() as rig:
        answer = httpx2.get(f"{rig.url}/v1/openapi.json")
    assert answer.json() == described()
