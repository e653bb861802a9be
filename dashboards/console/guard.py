"""What stands round every handler of the console: who may see it, which headers go out, how a refusal looks.

Invariants: no page without a session of a known token with a fitting role; no post without the form's own secret and
from this very site; every answer carries a policy that lets nothing run or load but the console's own files.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dashboards.console.rendering import Renderer
from dashboards.console.session import COOKIE, SESSION_SECONDS, Session, Sessions
from ingest.gateway.refusal import RequestRefusedError
from ingest.metrics import Metrics
from ingest.outcome import Refusal
from signals.delivery.http.context import READ_ROLES, PrincipalLike

FORM_BYTES_MAX = 8192
_FIELDS_MAX = 16
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
Handler = Callable[[Request], Awaitable[Response]]
Answerer = Callable[[Request, Session], Awaitable[Response]]


class Guard:
    """Wraps handlers."""

    def __init__(self, sessions: Sessions, renderer: Renderer, metrics: Metrics) -> None:
        """Take who opens cookies, what draws refusals, and where they are counted."""
        self._sessions, self._renderer, self._metrics = sessions, renderer, metrics

    def seen(self, answerer: Answerer, *, page: bool = True) -> Handler:
        """Return the handler of something that signed-in people see.

        Args:
            answerer: what answers.
            page: send those who are not signed in to the sign-in page; False: refuse them.
        """

        async def handle(request: Request) -> Response:
            session = self.session(request)
            if session.principal is None and page:
                return RedirectResponse(f"/sign-in?next={_own_path(str(request.url.path))}", 303)
            require(session, READ_ROLES)
            return await answerer(request, session)

        return self.plain(handle)

    def plain(self, handler: Handler) -> Handler:
        """Return a handler whose answers carry the headers, and whose refusals are shown."""

        async def handle(request: Request) -> Response:
            try:
                answer = await handler(request)
            except RequestRefusedError as error:
                answer = self._refused(error)
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return handle

    def session(self, request: Request) -> Session:
        """Return the session of a request; one of nobody where it brings none."""
        return self._sessions.open(request.cookies.get(COOKIE)) or Session("")

    async def form(self, request: Request, session: Session) -> dict[str, str]:
        """Return the fields of a posted form.

        Raises:
            RequestRefusedError: it comes from another site or another session, or can't be read.
        """
        if not _same_origin(request.headers):
            raise RequestRefusedError(Refusal.FORBIDDEN, "this form was not sent by a page of this console")
        data = b""
        async for piece in request.stream():
            data += piece
            if len(data) > FORM_BYTES_MAX:
                raise RequestRefusedError(Refusal.BODY_TOO_LARGE, f"a form has at most {FORM_BYTES_MAX} bytes")
        try:
            pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")
        except ValueError as error:
            raise RequestRefusedError(Refusal.BAD_REQUEST, f"the form can't be read: {error}") from error
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise RequestRefusedError(Refusal.BAD_REQUEST, "a field comes twice")
        if not session.form or not session.owns(fields.get("form", "")):
            raise RequestRefusedError(
                Refusal.FORBIDDEN, "the form is of another session, or too old: load the page again"
            )
        return fields

    def keep(self, request: Request, answer: Response, cookie: str) -> None:
        """Set the session's cookie."""
        answer.set_cookie(
            COOKIE, cookie, max_age=SESSION_SECONDS, path="/", httponly=True, samesite="strict", secure=_secure(request)
        )

    def forget(self, request: Request, answer: Response) -> None:
        """Take the session's cookie back."""
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=_secure(request))

    def _refused(self, error: RequestRefusedError) -> Response:
        self._metrics.count("requests_refused_total", reason=error.reason.value)
        html = self._renderer.render("refused.html", {"status": error.status, "detail": error.detail})
        return Response(html, error.status, media_type="text/html")


def require(session: Session, roles: Collection[str]) -> PrincipalLike:
    """Return who is signed in.

    Raises:
        RequestRefusedError: nobody is, or the token has none of the roles.
    """
    principal = session.principal
    if principal is None:
        raise RequestRefusedError(Refusal.UNAUTHENTICATED, "nobody is signed in, or the session is over: sign in")
    if not any(role in roles for role in principal.roles):
        raise RequestRefusedError(
            Refusal.FORBIDDEN, f"token {principal.name!r} has none of the roles {', '.join(sorted(roles))}"
        )
    return principal


def next_of(text: str | None) -> str:
    """Return where to go after signing in: a path of this site, never another one."""
    return _own_path(text or "/")


def _own_path(text: str) -> str:
    own = text.startswith("/") and not text.startswith("//") and text.isascii() and text.isprintable()
    return text if own and len(text) <= 200 and not set(text) & set("\\\"'<>& ") else "/"


def _same_origin(headers: Mapping[str, str]) -> bool:
    # Every browser that sends cookies by SameSite sends one of the two with a post; what sends neither is no browser,
    # and has no cookie that it was not given.
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _secure(request: Request) -> bool:
    # A proxy's word can only make the cookie stricter.
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
