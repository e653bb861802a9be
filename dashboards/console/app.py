"""The console's routes: pages, their live streams and plots, signing in, and what people ask for.

Mounted into the streams listener by each composition root, which is the only one that knows both. Handlers decide
nothing: pages read the views, plots the store, and a form becomes a command by the API's own desk.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dashboards.console import actions
from dashboards.console.decisions import Decisions
from dashboards.console.drawn import PlotAnswers
from dashboards.console.guard import Guard, next_of, require
from dashboards.console.history import History, HistoryError, Rows, Table
from dashboards.console.live import LiveBoard
from dashboards.console.overview import Overviews
from dashboards.console.pages.common import BasePage, Sources
from dashboards.console.pages.fleet import fleet_page, hours_of
from dashboards.console.pages.health import health_page
from dashboards.console.pages.rollouts import (
    RolloutPage,
    RolloutsPage,
    killswitch_page,
    pages_page,
    rollout_page,
    rollouts_page,
)
from dashboards.console.plots import FLEET_PLOTS, HOURS, ROLLOUT_PLOTS, Span
from dashboards.console.rendering import Renderer
from dashboards.console.sections import digest_of
from dashboards.console.session import Session, Sessions
from ingest.clock import Clock
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import LogUnavailableError
from ingest.outcome import Refusal
from ingest.sight import SightSource
from ingest.topics import LIVE_LANE
from signals.delivery.http.commands import CommandDesk, roles_of
from signals.delivery.http.context import COMMAND_ROLES, READ_ROLES, Authenticate, Context, unknown
from signals.delivery.service import StreamService
from signals.killswitch.lease import LeaseTerms
from signals.pagers.board import PagerBoard

HTML = "text/html"
# Static files are named by their content: what lies under a name never changes.
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}
_AGAIN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What a composition root hands to the console.

    Attributes:
        service: the live side of the signals: views, hub, log, metrics, keys.
        authenticate: gives the principal of an `Authorization` header, or None.
        clock: the wall clock.
        key: 32 secret bytes, the same for every process behind one address.
        lane: the lane's name.
        viewers_max: setting `console_viewers_max`.
        sight: whether Cordon sees; None where nobody watches.
        terms: of the lane's leases; None where it has none.
        rows: the store; None where there is none.
    """

    service: StreamService
    authenticate: Authenticate
    clock: Clock
    key: bytes
    lane: str
    viewers_max: int
    sight: SightSource | None = None
    terms: LeaseTerms | None = None
    rows: Rows | None = None


def console_routes(parts: ConsoleParts) -> list[Route]:
    """Return the routes of the console; none where no viewer is allowed."""
    if not parts.viewers_max:
        return []
    console = _Console(parts)
    guard, seen = console.guard, console.guard.seen
    return [
        Route("/", seen(console.fleet)),
        Route("/rollouts", seen(console.rollouts)),
        Route("/rollouts/{rollout}", seen(console.rollout)),
        Route("/rollouts/{rollout}/{action}", seen(console.act, page=False), methods=["POST"]),
        Route("/killswitch", seen(console.killswitch)),
        Route("/pages", seen(console.pages)),
        Route("/health", seen(console.health)),
        Route("/sign-in", guard.plain(console.sign_in), methods=["GET", "POST"]),
        Route("/sign-out", seen(console.sign_out, page=False), methods=["POST"]),
        Route("/console/live", seen(console.live, page=False)),
        Route("/console/plot/{name}", seen(console.plot, page=False)),
        Route("/console/table/{name}", seen(console.table, page=False)),
        Route("/console/static/{digest}/{name}", guard.plain(console.static)),
        Route("/favicon.ico", guard.plain(console.icon)),
    ]


class _Console:
    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts
        service = parts.service
        context = Context(service, parts.authenticate, parts.clock, parts.sight, parts.terms)
        overviews = Overviews(service.views, context.answers, parts.sight, parts.clock)
        self._sources = Sources(
            service=service,
            overviews=overviews,
            decisions=Decisions(service.log, service.topics, service.keys),
            pagers=PagerBoard(service.log, service.topics, parts.clock),
            clock=parts.clock,
            terms=parts.terms,
            lane=parts.lane,
            store=parts.rows is not None,
        )
        self._desk = CommandDesk(context)
        self._renderer = Renderer()
        self._sessions = Sessions(parts.key, parts.authenticate, parts.clock)
        self.guard = Guard(self._sessions, self._renderer, service.metrics)
        self._board = LiveBoard(self._renderer, service.metrics, parts.viewers_max, lambda: service.hub.closed)
        self._history = History(parts.rows)
        self._plots = PlotAnswers(self._history)

    async def fleet(self, request: Request, session: Session) -> Response:
        hours = _hours(request)
        return await self._shown(fleet_page(self._sources), session, hours=hours, choices=HOURS)

    async def rollouts(self, request: Request, session: Session) -> Response:
        return await self._shown(self._list(request.query_params), session)

    async def rollout(self, request: Request, session: Session) -> Response:
        page = self._rollout(request.path_params["rollout"])
        asked = request.query_params.get("asked", "")[:64]
        result = self._parts.service.views.command(asked) if asked else None
        facts = self._parts.service.views.facts(page.rollout)
        rings = facts.declared.rings if facts is not None and facts.declared is not None else []
        return await self._shown(
            page,
            session,
            asked=asked,
            result=result,
            result_sentence=actions.result_sentence(result),
            parts=[f"ring={ring.name}" for ring in rings],
            waiting=[one for one in self._parts.service.views.pending() if one.rollout == page.rollout],
            offer=actions.offer_to(require(session, READ_ROLES)),
        )

    async def killswitch(self, _request: Request, session: Session) -> Response:
        return await self._shown(killswitch_page(self._sources), session)

    async def pages(self, _request: Request, session: Session) -> Response:
        # As the API has it: who is told what is for those who may act on it.
        require(session, COMMAND_ROLES)
        return await self._shown(pages_page(self._sources), session)

    async def health(self, _request: Request, session: Session) -> Response:
        return await self._shown(health_page(self._sources), session)

    async def act(self, request: Request, session: Session) -> Response:
        action = actions.action_of(request.path_params["action"])
        principal = require(session, roles_of(action))
        body = actions.body_of(action, await self.guard.form(request, session))
        rollout = request.path_params["rollout"]
        command, _ = await self._desk.ask(action, principal, body, rollout, wait=True)
        query = urlencode({"asked": command.command_id})
        return RedirectResponse(f"/rollouts/{quote(command.rollout, safe='')}?{query}", 303)

    async def sign_in(self, request: Request) -> Response:
        session = self.guard.session(request)
        wanted = next_of(request.query_params.get("next"))
        if request.method == "GET":
            # Whoever is signed in stays so: another person signs out first.
            return RedirectResponse(wanted, 303) if session.principal else self._sign_in_page(request, wanted, "")
        fields = await self.guard.form(request, session)
        token = fields.get("token", "").strip()
        found, cookie = self._sessions.begin(token)
        if not token or found.principal is None or not any(role in READ_ROLES for role in found.principal.roles):
            self._parts.service.metrics.count("requests_refused_total", reason=Refusal.UNAUTHENTICATED.value)
            why = "This token is not known, or it may not read: use a viewer's, operator's or approver's."
            return self._sign_in_page(request, wanted, why)
        answer = RedirectResponse(wanted, 303)
        self.guard.keep(request, answer, cookie)
        return answer

    def _sign_in_page(self, request: Request, wanted: str, why: str) -> Response:
        session, cookie = self._sessions.begin()
        values = {"form": session.form, "wanted": wanted, "why": why, "lane": self._parts.lane, "live_lane": LIVE_LANE}
        answer = Response(self._renderer.render("sign_in.html", values), 401 if why else 200, media_type=HTML)
        self.guard.keep(request, answer, cookie)
        return answer

    async def sign_out(self, request: Request, session: Session) -> Response:
        await self.guard.form(request, session)
        answer = RedirectResponse("/sign-in", 303)
        self.guard.forget(request, answer)
        return answer

    async def live(self, request: Request, session: Session) -> Response:
        page, roles = self._page_of(request.query_params.get("page", ""), request.query_params)
        require(session, roles)
        header = session.header
        stream = self._board.admit(page, self._still(header, roles))
        if stream is None:
            detail = f"as many pages are open as may be, or Cordon is stopping; ask again in {_AGAIN_SECONDS} s"
            raise RequestRefusedError(Refusal.OVERLOADED, detail, _AGAIN_SECONDS)
        return stream

    async def plot(self, request: Request, _session: Session) -> Response:
        name = request.path_params["name"]
        try:
            if name in FLEET_PLOTS:
                span = Span(self._end_ms(), _hours(request))
                found = await self._plots.json(name, FLEET_PLOTS[name], **span.values())
            elif name in ROLLOUT_PLOTS:
                page = self._rollout(request.query_params.get("rollout", ""))
                found = await self._plots.json(name, ROLLOUT_PLOTS[name], rollout=page.rollout)
            else:
                raise RequestRefusedError(Refusal.NOT_FOUND, f"there is no plot {name[:32]!r}")
        except HistoryError as error:
            found = msgspec.json.encode({"why": str(error)})
        return Response(found, media_type="application/json")

    async def table(self, request: Request, session: Session) -> Response:
        name, values = request.path_params["name"], {}
        if name == "pagings":
            require(session, COMMAND_ROLES)
        elif name in ("signatures", "places"):
            rollout = request.query_params.get("rollout", "")
            facts = self._parts.service.views.facts(rollout)
            named = facts.named if facts else None
            if named is None:
                raise unknown(rollout)
            values = {"vendor": named.vendor, "product": named.product, "version": named.version}
        else:
            raise RequestRefusedError(Refusal.NOT_FOUND, f"there is no table {name[:32]!r}")
        why = ""
        rows: Table = []
        try:
            rows = await self._history.ask(name, **values)
        except HistoryError as error:
            why = str(error)
        html = self._renderer.section(f"table_{name}", {"rows": rows, "why": why})
        return Response(html, media_type=HTML)

    async def static(self, request: Request) -> Response:
        found = self._renderer.files.get(request.path_params["digest"], request.path_params["name"])
        if found is None:
            raise RequestRefusedError(Refusal.NOT_FOUND, "there is no such file, or it is another by now")
        return Response(found[0], headers=_FOR_EVER, media_type=found[1])

    async def icon(self, _request: Request) -> Response:
        return RedirectResponse(self._renderer.files.url("icon.svg"), 303)

    async def _shown(self, page: BasePage, session: Session, **more: Any) -> Response:
        html = await asyncio.to_thread(self._html, page, session, more)
        return Response(html, media_type=HTML)

    def _html(self, page: BasePage, session: Session, more: dict[str, Any]) -> str:
        try:
            values = page.values()
        except LogUnavailableError as error:
            raise RequestRefusedError(
                Refusal.LOG_UNAVAILABLE, f"the log can't be used now: {error}", _AGAIN_SECONDS
            ) from error
        sections = {name: self._renderer.section(name, values) for name in page.sections}
        live = {name: (html, digest_of(html)) for name, html in sections.items()}
        shell = {"page": page, "live": live, "form": session.form, "principal": session.principal}
        return self._renderer.render(page.template, values | shell | more | {"live_lane": LIVE_LANE})

    def _rollout(self, rollout: str) -> RolloutPage:
        page = rollout_page(self._sources, rollout)
        if page is None:
            raise unknown(rollout)
        return page

    def _list(self, query: QueryParams) -> RolloutsPage:
        everything = query.get("all", "")
        if everything not in ("", "yes"):
            raise RequestRefusedError(Refusal.BAD_REQUEST, f"all={everything[:16]!r}: write all=yes, or nothing")
        return rollouts_page(self._sources, query.get("q", ""), everything=bool(everything))

    def _page_of(self, path: str, query: QueryParams) -> tuple[BasePage, frozenset[str]]:
        """Return the page that is looked at, and who may."""
        if path.startswith("/rollouts/"):
            return self._rollout(path.removeprefix("/rollouts/")), READ_ROLES
        if path == "/rollouts":
            return self._list(query), READ_ROLES
        if path == "/pages":
            return pages_page(self._sources), COMMAND_ROLES
        makers = {"/": fleet_page, "/killswitch": killswitch_page, "/health": health_page}
        if path not in makers:
            raise RequestRefusedError(Refusal.NOT_FOUND, f"there is no page {path[:64]!r}")
        return makers[path](self._sources), READ_ROLES

    def _still(self, header: str | None, roles: frozenset[str]) -> Callable[[], bool]:
        """Return whether the token of a stream is known still, and may read still."""

        def valid() -> bool:
            principal = self._parts.authenticate(header)
            return principal is not None and any(role in roles for role in principal.roles)

        return valid

    def _end_ms(self) -> int:
        if self._parts.lane == LIVE_LANE:
            return self._parts.clock.now_ms()
        # A replay's reports are of long ago: its verdicts say where its clock stands.
        return self._sources.overviews.now().newest_ms or self._parts.clock.now_ms()


def _hours(request: Request) -> int:
    hours = hours_of(request.query_params.get("hours"))
    if hours is None:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"hours: one of {', '.join(map(str, HOURS))}")
    return hours
