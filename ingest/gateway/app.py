"""The HTTP shell of the gateway: headers and bodies in, JSON answers out; it decides nothing.

`/v1/reports` is a plain ASGI callable reached before Starlette's routing, since thousands of single-report posts a
second share this process with all other stages. The invariant: every answer that is not a success is JSON with one
closed `reason`, and every one is counted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ingest.gateway.body import BodyReader, ClientGoneError
from ingest.gateway.gateway import Gateway
from ingest.gateway.inflate import inflate
from ingest.gateway.operations import PAGE_MAX, ClockBody, described
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.tenants import Principal, Role
from ingest.openapi import PATH as OPENAPI_PATH
from ingest.outcome import Refusal
from ingest.planning import Planner, advised
from ingest.rollouts import Rollout

_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
# Inflating a larger body on the event loop would hold up every other post.
_INLINE_BYTES_MAX = 65536
_encode = msgspec.json.Encoder().encode
# What nearly every post is told: formatted, without building the dictionary that encoding takes.
_TAKEN = b'{"accepted":%d,"refused":[],"next_check_in_s":%d}'
_JSON_HEADER = (b"content-type", b"application/json")

Handler = Callable[[Request], Awaitable[Response]]


class _ReportsApp(Starlette):
    """Starlette with a short cut to the one path that is hot."""

    def __init__(self, reports: "_Reports", **options: Any) -> None:
        super().__init__(**options)
        self._reports = reports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/reports":
            await self._reports(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def reports_app(gateway: Gateway, planner: Planner) -> Starlette:
    """Return the application of the listener that takes reports.

    The gateway is started and drained by the composition root, not by the application's lifespan: streams and stages
    have to stop in an order that only the root knows.

    Args:
        gateway: takes what is posted.
        planner: advises on rollouts that are declared.
    """
    settings = gateway.settings
    reader = BodyReader(settings.body_bytes_max, settings.pending_bytes_max, settings.body_seconds_max)
    pages, openapi = _Pages(gateway, reader, planner), _encode(described())

    async def document(_request: Request) -> Response:
        return Response(openapi, media_type="application/json")

    return _ReportsApp(
        _Reports(gateway, reader),
        routes=[
            Route("/v1/rollouts", pages.guard(pages.declare), methods=["POST"]),
            Route("/v1/rollouts", pages.guard(pages.list_rollouts), methods=["GET"]),
            Route("/v1/rollouts/{rollout}", pages.guard(pages.one_rollout), methods=["GET"]),
            Route("/v1/rollouts/{rollout}/plan", pages.guard(pages.plan), methods=["GET"]),
            Route("/v1/clock", pages.guard(pages.drive), methods=["POST"]),
            Route("/healthz", pages.healthz, methods=["GET"]),
            Route("/readyz", pages.readyz, methods=["GET"]),
            Route("/metrics", pages.metrics, methods=["GET"]),
            Route(OPENAPI_PATH, document, methods=["GET"]),
        ],
        exception_handlers={HTTPException: pages.not_served},
    )


def refusal_body(refusal: RequestRefusedError) -> tuple[bytes, dict[str, str]]:
    """Return the JSON body and the extra headers that tell a sender why his whole request was refused."""
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["retry-after"] = str(refusal.retry_after_seconds)
    if refusal.reason is Refusal.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return _encode({"reason": refusal.reason, "detail": refusal.detail}), headers


def _authenticate(gateway: Gateway, header: str | None) -> Principal:
    principal = gateway.tokens.authenticate(header)
    if principal is None:
        raise RequestRefusedError(Refusal.UNAUTHENTICATED, "send `Authorization: Bearer TOKEN` with a token known here")
    return principal


async def _inflated(body: bytes, encoding: str, inflated_bytes_max: int) -> bytes:
    if not encoding or len(body) <= _INLINE_BYTES_MAX:
        return inflate(body, encoding, inflated_bytes_max)
    return await asyncio.to_thread(inflate, body, encoding, inflated_bytes_max)


def _is_ndjson(content_type: str) -> bool:
    """Tell NDJSON from JSON by the Content-Type header.

    Raises:
        RequestRefusedError: it is neither, or not in UTF-8.
    """
    if content_type == "application/json":
        return False
    media, _, parameters = content_type.partition(";")
    media = media.strip().lower()
    charset = parameters.lower().replace(" ", "").replace('"', "").removeprefix("charset=")
    if media not in ("application/json", *_NDJSON) or charset not in ("", "utf-8", "utf8"):
        detail = (
            f"Content-Type {(content_type or 'none')[:80]!r}: send application/json or application/x-ndjson in UTF-8"
        )
        raise RequestRefusedError(Refusal.UNSUPPORTED_MEDIA_TYPE, detail)
    return media in _NDJSON


class _Reports:
    """`POST /v1/reports`, straight on ASGI."""

    def __init__(self, gateway: Gateway, reader: BodyReader) -> None:
        self._gateway = gateway
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers: dict[str, str] = {}
        try:
            status, body = await self._handle(scope, receive)
        except RequestRefusedError as refusal:
            self._gateway.metrics.count("requests_refused_total", reason=refusal.reason)
            status = refusal.status
            body, headers = refusal_body(refusal)
        except ClientGoneError:
            return
        if status == 400 and scope["method"] != "POST":
            status, headers = 405, {"allow": "POST"}
        raw = [_JSON_HEADER, (b"content-length", b"%d" % len(body))]
        if headers:
            raw += [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
        self._gateway.metrics.observe("post_seconds", time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        gateway = self._gateway
        if scope["method"] != "POST":
            raise RequestRefusedError(Refusal.BAD_REQUEST, "reports are posted: use POST")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        principal = _authenticate(gateway, headers.get(b"authorization", b"").decode("latin-1"))
        ndjson = _is_ndjson(headers.get(b"content-type", b"").decode("latin-1"))
        gateway.admit(principal)
        body = await self._reader.read(headers.get(b"content-length"), receive)
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        if encoding or len(body) > gateway.settings.body_inflated_bytes_max:
            body = await _inflated(body, encoding, gateway.settings.body_inflated_bytes_max)
        answer = await gateway.post(body, ndjson, principal)
        if not answer.refused:
            return 202, _TAKEN % (answer.accepted, answer.next_check_in_seconds)
        status = 202 if answer.accepted else 400
        refused = [{"index": index, "reason": reason, "detail": detail} for index, reason, detail in answer.refused]
        said = {"accepted": answer.accepted, "refused": refused, "next_check_in_s": answer.next_check_in_seconds}
        return status, _encode(said)


class _Pages:
    """The paths that are not hot, on Starlette."""

    def __init__(self, gateway: Gateway, reader: BodyReader, planner: Planner) -> None:
        self._gateway = gateway
        self._reader = reader
        self._planner = planner

    def guard(self, handler: Callable[[Request, Principal], Awaitable[Response]]) -> Handler:
        """Authenticate before `handler`, and turn refusals into answers after it."""

        async def guarded(request: Request) -> Response:
            try:
                principal = _authenticate(self._gateway, request.headers.get("authorization"))
                return await handler(request, principal)
            except RequestRefusedError as refusal:
                return self._refuse(refusal)
            except ClientGoneError:
                return Response(status_code=400)

        return guarded

    def _refuse(self, refusal: RequestRefusedError) -> Response:
        self._gateway.metrics.count("requests_refused_total", reason=refusal.reason)
        body, headers = refusal_body(refusal)
        return Response(body, refusal.status, headers, "application/json")

    async def _body(self, request: Request) -> bytes:
        if _is_ndjson(request.headers.get("content-type", "")):
            raise RequestRefusedError(Refusal.UNSUPPORTED_MEDIA_TYPE, "send one object as application/json")
        length = request.headers.get("content-length")
        body = await self._reader.read(length.encode() if length is not None else None, request.receive)
        encoding = request.headers.get("content-encoding", "")
        return await _inflated(body, encoding, self._gateway.settings.body_inflated_bytes_max)

    async def declare(self, request: Request, principal: Principal) -> Response:
        """Take a rollout's declaration, and advise on it: 201 when it is new, else 200."""
        rollout, created = await self._gateway.declare(await self._body(request), principal)
        advice = await asyncio.to_thread(self._planner.advise, rollout)
        return Response(_encode(advised(rollout, advice)), 201 if created else 200, media_type="application/json")

    async def list_rollouts(self, request: Request, principal: Principal) -> Response:
        """Give one page of rollouts, sorted by id, and the `after` of the next."""
        _may_read(principal)
        limit = request.query_params.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit[:9]) <= PAGE_MAX:
            raise RequestRefusedError(Refusal.BAD_REQUEST, f"limit is a number from 1 to {PAGE_MAX}")
        page = self._gateway.book.page(request.query_params.get("after", ""), int(limit) + 1)
        more = len(page) > int(limit)
        page = page[: int(limit)]
        said = {"rollouts": page, "next": page[-1].rollout if more else None}
        return Response(_encode(said), media_type="application/json")

    async def one_rollout(self, request: Request, principal: Principal) -> Response:
        """Give one rollout by its id."""
        return Response(_encode(self._known(request, principal)), media_type="application/json")

    async def plan(self, request: Request, principal: Principal) -> Response:
        """Advise on one rollout again, by the policy as it is now."""
        advice = await asyncio.to_thread(self._planner.advise, self._known(request, principal))
        return Response(_encode(advice), media_type="application/json")

    def _known(self, request: Request, principal: Principal) -> Rollout:
        _may_read(principal)
        rollout = self._gateway.book.get(request.path_params["rollout"])
        if rollout is None:
            raise RequestRefusedError(Refusal.NOT_FOUND, "no such rollout: GET /v1/rollouts lists them")
        return rollout

    async def drive(self, request: Request, principal: Principal) -> Response:
        """Drive the clock of a replay's lane."""
        body = await self._body(request)
        try:
            wanted = msgspec.json.decode(body, type=ClockBody)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            detail = f"send {{at_ms, wait_for_ms}}: {str(error)[:200]}"
            raise RequestRefusedError(Refusal.BAD_REQUEST, detail) from error
        driven = await self._gateway.drive(wanted.at_ms, wanted.wait_for_ms, principal)
        return Response(_encode(driven), media_type="application/json")

    async def healthz(self, _request: Request) -> Response:
        """Say that the event loop turns."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def readyz(self, _request: Request) -> Response:
        """Say whether posts would be taken, and if not why; and whether they wait in the spool for the log."""
        problems, spooling = self._gateway.problems(), self._gateway.spooling()
        said: dict[str, Any] = {"ready": not problems, "problems": problems}
        if spooling is not None:
            said["spooling"] = spooling
        body = _encode(said)
        return Response(body, 503 if problems else 200, media_type="application/json")

    async def metrics(self, _request: Request) -> Response:
        """Give the process's metrics in Prometheus text format."""
        return Response(self._gateway.metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def not_served(self, _request: Request, error: Exception) -> Response:
        """Answer an unknown path or a wrong method in the form of every other refusal."""
        assert isinstance(error, HTTPException)
        reason = Refusal.NOT_FOUND if error.status_code == 404 else Refusal.BAD_REQUEST
        self._gateway.metrics.count("requests_refused_total", reason=reason)
        body = _encode({"reason": reason, "detail": error.detail})
        return Response(body, error.status_code, error.headers, "application/json")


def _may_read(principal: Principal) -> None:
    """Refuse tokens that devices carry: what is being rolled out where is nobody's business on an endpoint."""
    if not principal.roles & {Role.ROLLOUT, Role.OPERATOR}:
        raise RequestRefusedError(Refusal.FORBIDDEN, f"token {principal.name!r} lacks the role `rollout` or `operator`")
