"""Holds an answer of a running listener to the OpenAPI document that describes it."""

import re
from collections.abc import Callable
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

METHODS = {"get", "post", "put", "delete", "patch"}


def check_answer(document: dict[str, Any], method: str, path: str, answer: httpx2.Response) -> None:
    """Fail unless the document declares this status for the operation, with this body and these headers.

    Args:
        document: the listener's OpenAPI document.
        method: in capitals.
        path: as the document has it, with its parameters in braces.
        answer: what was answered.
    """
    where = f"{method} {path} answered {answer.status_code}"
    operation = document["paths"][path][method.lower()]
    declared = operation["responses"].get(str(answer.status_code))
    assert declared is not None, f"{where}, which is not declared: {answer.text[:300]}"
    for name in declared.get("headers", {}):
        assert name.lower() in answer.headers, f"{where} without the header {name}"
    content = declared.get("content")
    if content is None:
        assert answer.content == b"", f"{where} with a body, and none is declared"
        return
    media = answer.headers["content-type"]
    found = next((name for name in content if media.partition(";")[0] == name.partition(";")[0]), None)
    assert found is not None, f"{where} as {media}, declared is {', '.join(content)}"
    if "json" not in found:
        return
    # The components lie where the references point to.
    schema = {**content[found]["schema"], "components": document["components"]}
    errors = [
        f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(schema).iter_errors(answer.json())
    ]
    assert not errors, f"{where}, but {'; '.join(errors[:5])}"


def checking(document: dict[str, Any]) -> Callable[[httpx2.Response], None]:
    """Return a client's hook that holds every answer to the document; paths that it does not have are left alone."""
    paths = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in document["paths"]]
    # A path without parameters is meant before one that has them.
    paths.sort(key=lambda item: item[1].count("{"))

    def check(answer: httpx2.Response) -> None:
        asked = answer.request
        path = next((path for pattern, path in paths if pattern.fullmatch(asked.url.path)), None)
        if path is None or asked.method.lower() not in document["paths"][path]:
            return
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer.read()
            check_answer(document, asked.method, path, answer)

    return check
