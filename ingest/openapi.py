"""From declared operations to an OpenAPI 3.1 document.

Used by both listeners, which serve their document, and by `make docs`, which writes it. Schemas come from the types
that handlers encode and decode. The invariant: the same declarations give the same document.
"""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

import msgspec

from ingest.gateway.refusal import STATUS
from ingest.operations import Answer, Operation, Parameter, RefusalAnswer
from ingest.outcome import REFUSAL_DOCS, Refusal
from ingest.wire_docs import field_docs, split_docstring, structs_in

OPENAPI = "3.1.0"
PATH = "/v1/openapi.json"
DESCRIBED = Operation(
    method="GET",
    path=PATH,
    name="openapi",
    summary="This document.",
    answers=(Answer(200, "The listener's paths as OpenAPI 3.1.", dict[str, Any]),),
)
_REF = "#/components/schemas/{name}"
_SCHEME = "token"


def document(title: str, about: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of one listener, as plain dictionaries in the order it is written.

    Args:
        title: what the listener is called.
        about: what it is for, in CommonMark.
        operations: everything it serves.

    Raises:
        ValueError: two operations have one name, or the parameters of a path are not those that it names.
    """
    operations = sorted(operations, key=lambda item: (item.path, item.method))
    _check(operations)
    kinds = [RefusalAnswer, *(kind for operation in operations for kind in _kinds(operation))]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    maker = _Maker(iter(references))
    return {
        "openapi": OPENAPI,
        "info": {
            "title": title,
            "version": version("cordon"),
            "description": about,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            path: {operation.method.lower(): maker.operation(operation) for operation in found}
            for path, found in groupby(operations, key=lambda item: item.path)
        },
        "components": {
            "schemas": _described(schemas, kinds),
            "securitySchemes": {
                _SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `tokens.toml`; it needs one of the roles that the operation names.",
                }
            },
        },
    }


def _check(operations: Sequence[Operation]) -> None:
    names = [operation.name for operation in operations]
    if len(names) != len(set(names)):
        raise ValueError(f"operations share a name: {sorted(name for name in names if names.count(name) > 1)}")
    for operation in operations:
        declared = {parameter.name for parameter in operation.parameters if parameter.where == "path"}
        named = {part.strip("{}") for part in operation.path.split("/") if part.startswith("{")}
        if declared != named:
            raise ValueError(f"{operation.method} {operation.path} declares the parameters {sorted(declared)}")


def _kinds(operation: Operation) -> Iterable[Any]:
    """Yield every type of an operation, in the order in which `_Maker` asks for their schemas."""
    yield from (parameter.kind for parameter in operation.parameters)
    if operation.body is not None:
        yield operation.body
    yield from (answer.body for answer in operation.answers if answer.body is not None)


class _Maker:
    """Puts operations together; takes the schemas of their types in the order of `_kinds`."""

    def __init__(self, schemas: Any) -> None:
        self._schemas = schemas
        self._refusal = next(schemas)

    def operation(self, operation: Operation) -> dict[str, Any]:
        made: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
        if operation.description:
            made["description"] = operation.description
        if operation.roles:
            made["security"] = [{_SCHEME: [str(role)]} for role in sorted(operation.roles)]
        if operation.parameters:
            made["parameters"] = [self._parameter(parameter) for parameter in operation.parameters]
        if operation.body is not None:
            schema = next(self._schemas)
            content = {media: {"schema": schema} for media in operation.body_media}
            made["requestBody"] = {"required": True, "content": content}
        responses = {str(answer.status): self._answer(answer) for answer in operation.answers}
        for status, refused in self._refusals(operation).items():
            responses[status] = _either(responses[status], refused) if status in responses else refused
        made["responses"] = responses
        return made

    def _parameter(self, parameter: Parameter) -> dict[str, Any]:
        schema = next(self._schemas)
        made: dict[str, Any] = {"name": parameter.name, "in": parameter.where, "description": parameter.doc}
        if parameter.required:
            made["required"] = True
        if parameter.repeated:
            return {**made, "schema": {"type": "array", "items": schema}, "style": "form", "explode": True}
        return {**made, "schema": schema}

    def _answer(self, answer: Answer) -> dict[str, Any]:
        made: dict[str, Any] = {"description": answer.doc}
        if answer.headers:
            made["headers"] = {
                name: {"description": doc, "schema": {"type": "string"}} for name, doc in answer.headers.items()
            }
        if answer.body is not None:
            made["content"] = {answer.media: {"schema": next(self._schemas)}}
        elif answer.media:
            made["content"] = {answer.media: {"schema": {"type": "string"}}}
        return made

    def _refusals(self, operation: Operation) -> dict[str, Any]:
        always = (Refusal.UNAUTHENTICATED, Refusal.FORBIDDEN) if operation.roles else ()
        by_status: dict[str, list[Refusal]] = {}
        for reason in (*always, *operation.refusals):
            by_status.setdefault(str(STATUS[reason]), []).append(reason)
        return {
            status: {
                "description": " ".join(f"`{reason.value}`: {_remedy(reason)}" for reason in reasons),
                "content": {"application/json": {"schema": self._refusal}},
            }
            for status, reasons in sorted(by_status.items())
        }


def _either(answer: dict[str, Any], refused: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose status a refusal may have as well."""
    content = dict(answer.get("content", {}))
    for media, about in refused["content"].items():
        schemas = [content[media]["schema"], about["schema"]] if media in content else [about["schema"]]
        content[media] = {"schema": {"anyOf": schemas} if len(schemas) > 1 else schemas[0]}
    description = f"{answer['description']} Or it is refused: {refused['description']}"
    return {**answer, "description": description, "content": content}


def _remedy(reason: Refusal) -> str:
    return REFUSAL_DOCS[reason].partition(": ")[2]


def _described(schemas: dict[str, dict[str, Any]], kinds: Sequence[Any]) -> dict[str, dict[str, Any]]:
    classes = {name: cls for cls in structs_in(kinds) for name in (cls.__name__, f"{cls.__module__}.{cls.__name__}")}
    made = {}
    for name in sorted(schemas):
        schema = schemas[name]
        if "description" in schema:
            schema["description"] = split_docstring(schema["description"])[0]
        docs = field_docs(classes[name]) if name in classes else {}
        for field, about in schema.get("properties", {}).items():
            if field in docs:
                schema["properties"][field] = {"description": docs[field], **about}
        made[name] = schema
    return made
