"""ClickHouse's HTTP protocol, as far as reading goes: what `cordon query`, a Grafana and curl speak.

Served by the composition root on loopback (`query_port`), because embedded data has one owner process. Refusal is the
engine's (`readonly = 1`) and the guard's; this file is the protocol's shape. The invariant: every request is answered
with ClickHouse's own words and codes, and none can hold more than one of the bounded sessions.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ingest.metrics import Metrics
from ingest.store.guard import QUERY_CHARS_MAX, RefusedError
from ingest.store.interface import Reader, StoreBusyError, StoreError

DEFAULT_FORMAT: Final = "TabSeparated"
BODY_BYTES_MAX: Final = 4 * QUERY_CHARS_MAX
PARAMETERS_MAX: Final = 64
# Queries that run or wait for a session; the next one is told to come back.
PENDING_MAX: Final = 16
# A page in somebody's browser can make requests to loopback under a name of its own; only these names are answered.
HOSTS: Final = ("127.0.0.1", "localhost")
STATUS: Final[dict[int, int]] = {
    36: 400, 43: 400, 46: 400, 47: 404, 60: 404, 81: 404, 62: 400, 158: 413, 159: 408, 160: 408, 164: 403, 202: 503,
    241: 507, 307: 413, 396: 413, 457: 400, 497: 403,
}  # fmt: skip
_CONTENT_TYPES: Final = {
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8",
    "csvwithnames": "text/csv; charset=UTF-8",
    "native": "application/octet-stream",
    "rowbinary": "application/octet-stream",
    "arrow": "application/octet-stream",
    "arrowstream": "application/octet-stream",
    "parquet": "application/octet-stream",
}
_FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z0-9]+)\s*;?\s*\Z", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


class TooLargeError(Exception):
    """The body is larger than any query may be."""


def application(
    reader: Reader,
    metrics: Metrics,
    hosts: tuple[str, ...] = HOSTS,
    refuses: Callable[[str | None], bool] = lambda _: False,
) -> Starlette:
    """Return the ASGI application of the read-only endpoint.

    Args:
        reader: the bounded way into the store.
        metrics: counts queries by result.
        hosts: names in the `Host` header that are answered.
        refuses: tells of an `Authorization` header whether its token may not read here. Nobody needs one, but a proxy
            may hand on a token that is good for one vendor's view only.
    """
    endpoint = _Endpoint(reader, metrics, refuses)
    routes = [
        Route("/", endpoint.query, methods=["GET", "POST"]),
        Route("/ping", endpoint.ping, methods=["GET"]),
        Route("/replicas_status", endpoint.ping, methods=["GET"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


class _Endpoint:
    def __init__(self, reader: Reader, metrics: Metrics, refuses: Callable[[str | None], bool]) -> None:
        self._reader = reader
        self._refuses = refuses
        self._metrics = metrics
        self._pending = 0

    async def ping(self, request: Request) -> Response:
        """Say that the endpoint is up, as ClickHouse does."""
        del request
        return PlainTextResponse("Ok.\n")

    async def query(self, request: Request) -> Response:
        """Answer one query, or say `Ok.` to a request without one."""
        try:
            if self._refuses(request.headers.get("authorization")):
                raise RefusedError("a vendor's token may ask /v1/vendors/me only")
            _refuse_compression(request.query_params)
            body = await _body(request)
            parameters = request.query_params
            sql = parameters.get("query", "") + ("\n" if parameters.get("query") and body else "") + body
            if not sql.strip():
                return PlainTextResponse("Ok.\n")
            return await self._answer(sql, request)
        except TooLargeError:
            return self._failure(StoreError(f"Code: 307. a query may have {BODY_BYTES_MAX} bytes", 307), "refused")
        except UnicodeDecodeError:
            return self._failure(
                RefusedError("the query is not UTF-8; this endpoint takes no compressed bodies"), "refused"
            )
        except RefusedError as error:
            return self._failure(error, "refused")
        except StoreBusyError as error:
            return self._failure(error, "busy")
        except StoreError as error:
            return self._failure(error, "refused" if error.code in (164, 497) else "failed")

    async def _answer(self, sql: str, request: Request) -> Response:
        wanted = request.query_params.get("default_format") or request.headers.get("x-clickhouse-format")
        form = wanted or DEFAULT_FORMAT
        if not _NAME.fullmatch(form):
            raise RefusedError(f"default_format {form[:40]!r} is no name of a format")
        database = request.query_params.get("database") or request.headers.get("x-clickhouse-database") or ""
        parameters = _parameters(request.query_params)
        if self._pending >= PENDING_MAX:
            raise StoreBusyError(f"Code: 202. {PENDING_MAX} queries run or wait, as many as may; ask again", 202)
        self._pending += 1
        try:
            answer = await anyio.to_thread.run_sync(self._reader.read, sql, form, parameters, database)
        finally:
            self._pending -= 1
        named = _FORMAT.search(sql)
        form = named.group(1) if named else form
        self._metrics.count("queries_total", result="ok")
        return Response(answer, media_type=_content_type(form), headers=_headers() | {"X-ClickHouse-Format": form})

    def _failure(self, error: StoreError, result: str) -> Response:
        self._metrics.count("queries_total", result=result)
        status = STATUS.get(error.code, 400 if error.code else 500)
        headers = _headers() | {"X-ClickHouse-Exception-Code": str(error.code)}
        if status == 503:
            headers["Retry-After"] = "1"
        return PlainTextResponse(f"{error}\n", status, headers)


async def _body(request: Request) -> str:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise TooLargeError
        chunks.append(chunk)
    return b"".join(chunks).decode()


def _refuse_compression(query: Mapping[str, str]) -> None:
    """Refuse ClickHouse's own block compression aloud: an answer without it would look broken to who asked for it.

    Raises:
        RefusedError: the client asked for it.
    """
    asked = [name for name in ("compress", "decompress") if query.get(name, "0") not in ("0", "false")]
    if asked:
        raise RefusedError(f"{asked[0]}=1 is not served here: set the client's compression to none")


def _parameters(query: Mapping[str, str]) -> dict[str, str]:
    """Return the values of `param_NAME` by name.

    Raises:
        RefusedError: there are too many, or a name is no name.
    """
    found = {name.removeprefix("param_"): value for name, value in query.items() if name.startswith("param_")}
    if len(found) > PARAMETERS_MAX or not all(re.fullmatch(r"[A-Za-z_]\w{0,63}", name) for name in found):
        raise RefusedError(f"at most {PARAMETERS_MAX} parameters, named with letters, digits and '_'")
    return found


def _content_type(form: str) -> str:
    return _CONTENT_TYPES.get(form.lower(), "text/tab-separated-values; charset=UTF-8")


def _headers() -> dict[str, str]:
    return {
        "X-ClickHouse-Query-Id": str(uuid.uuid4()),
        "X-ClickHouse-Server-Display-Name": "cordon",
        "X-ClickHouse-Timezone": "UTC",
    }
