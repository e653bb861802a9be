"""What every route of the streams listener needs: who asks, and how answers and refusals look.

Invariants: nothing is answered without a known token but health and public keys; every refusal carries one closed
reason, which is the metric's label as well.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ingest.clock import Clock
from ingest.events import encoder
from ingest.gateway.refusal import RequestRefusedError
from ingest.metrics import Metrics
from ingest.outcome import Refusal
from ingest.sight import SightSource
from signals.delivery.answers import Answers
from signals.delivery.service import StreamService
from signals.delivery.webhooks.desk import WebhookDesk
from signals.killswitch.lease import LeaseTerms
from signals.vendors.desk import NO_SOURCE, VendorSource

READ_ROLES = frozenset({"viewer", "rollout", "operator", "approver"})
COMMAND_ROLES = frozenset({"operator"})
APPROVE_ROLES = frozenset({"approver"})
RETRY_AFTER_SECONDS = 2


class PrincipalLike(Protocol):
    """Who a token speaks for."""

    @property
    def name(self) -> str:
        """Return the token's name, for the trail."""
        ...

    @property
    def tenants(self) -> Collection[str]:
        """Return the tenants it may speak for; `*` is every tenant."""
        ...

    @property
    def roles(self) -> Collection[str]:
        """Return what the token may do."""
        ...

    @property
    def vendors(self) -> Collection[str]:
        """Return whose view a vendor's token gives; empty for every other."""
        ...


Authenticate = Callable[[str | None], PrincipalLike | None]


@dataclass(frozen=True, slots=True)
class Context:
    """What the composition root hands to every route.

    Attributes:
        service: the live side: views, hub, log.
        authenticate: gives the principal of an `Authorization` header, or None.
        clock: stamps what people ask for.
        sight: whether Cordon sees; None where nobody watches.
        terms: of the lane's leases; None where it has none.
        webhooks: where people ask for webhooks; None where nobody posts any.
        vendor_source: what vendors' views are cut from.
    """

    service: StreamService
    authenticate: Authenticate
    clock: Clock
    sight: SightSource | None = None
    terms: LeaseTerms | None = None
    webhooks: WebhookDesk | None = None
    vendor_source: VendorSource = NO_SOURCE

    @property
    def answers(self) -> Answers:
        """Return what answers for rollouts."""
        return Answers(self.service.views, self.clock, self.terms, self.sight)

    def principal(self, request: Request, roles: Collection[str]) -> PrincipalLike:
        """Return who asks.

        Raises:
            RequestRefusedError: no known token, or one that has none of the roles.
        """
        return self.principal_of(request.headers.get("authorization"), roles)

    def principal_of(self, header: str | None, roles: Collection[str]) -> PrincipalLike:
        """Return whom an `Authorization` header speaks for; raises like `principal`."""
        principal = self.authenticate(header)
        if principal is None:
            raise RequestRefusedError(Refusal.UNAUTHENTICATED, "send `Authorization: Bearer TOKEN` with a known token")
        if not any(role in roles for role in principal.roles):
            raise RequestRefusedError(
                Refusal.FORBIDDEN, f"token {principal.name!r} has none of the roles {', '.join(sorted(roles))}"
            )
        return principal


def answer(said: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `said` as JSON."""
    return Response(encoder.encode(said), status, headers, media_type="application/json")


def unknown(rollout: str) -> RequestRefusedError:
    """Return the refusal for a rollout that is in no topic: never a default."""
    return RequestRefusedError(Refusal.NOT_FOUND, f"no rollout {rollout[:64]!r} is known here: check the id")


def bad_parameters(request: Request, known: Collection[str]) -> RequestRefusedError | None:
    """Return the refusal for a query parameter that the path does not take, or None."""
    extra = sorted(set(request.query_params) - set(known))
    return RequestRefusedError(Refusal.BAD_REQUEST, f"no such parameter: {', '.join(extra)[:100]}") if extra else None


class Refusals:
    """How a refused request is answered and counted."""

    def __init__(self, metrics: Metrics) -> None:
        """Take where refusals are counted."""
        self._metrics = metrics

    async def refused(self, _request: Request, error: Exception) -> Response:
        """Answer a refusal with its closed reason."""
        assert isinstance(error, RequestRefusedError)
        self._metrics.count("requests_refused_total", reason=error.reason.value)
        headers = {} if error.retry_after_seconds is None else {"retry-after": str(error.retry_after_seconds)}
        if error.reason is Refusal.UNAUTHENTICATED:
            headers["www-authenticate"] = "Bearer"
        return answer({"reason": error.reason.value, "detail": error.detail}, error.status, headers)

    async def http_error(self, _request: Request, error: Exception) -> Response:
        """Answer what no route takes."""
        assert isinstance(error, HTTPException)
        reason = Refusal.NOT_FOUND if error.status_code == 404 else Refusal.BAD_REQUEST
        detail = f"{error.detail}: GET /v1/openapi.json lists every path and its methods"
        return answer({"reason": reason.value, "detail": detail}, error.status_code, dict(error.headers or {}))
