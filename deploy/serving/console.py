"""Makes the console's routes from the settings; shared by the embedded Cordon and `cordon signals`.

Invariant: every process of an installation makes the same key for the console's cookies, so that whoever signed in at
one is known to the others behind the same address.
"""

from starlette.routing import Route

from dashboards.console.app import ConsoleParts, console_routes
from dashboards.console.history import ReaderRows, Rows, StoreRows
from ingest.clock import Clock
from ingest.settings import Settings
from ingest.sight import SightSource
from ingest.store.interface import Reader, database_of
from ingest.store.native import READER_SETTINGS, NativeStore
from ingest.store.server import server_of
from signals.delivery.http.context import Authenticate
from signals.delivery.service import StreamService
from signals.delivery.webhooks.secret import WebhookKey
from signals.killswitch.leasing import terms_of

PURPOSE = "console sessions"


def console_of(
    settings: Settings,
    service: StreamService,
    authenticate: Authenticate,
    clock: Clock,
    key: WebhookKey,
    sight: SightSource,
    reader: Reader | None,
) -> list[Route]:
    """Return the console's routes; none where the settings want no console.

    Args:
        settings: of this process.
        service: the live side of the signals.
        authenticate: gives the principal of an `Authorization` header, or None.
        clock: the wall clock.
        key: the installation's.
        sight: whether Cordon sees.
        reader: of the store in this process; None where it has none, and then the ClickHouse server of the settings
            is asked, if there is one.
    """
    return console_routes(
        ConsoleParts(
            service=service,
            authenticate=authenticate,
            clock=clock,
            key=key.derived(PURPOSE),
            lane=settings.lane,
            viewers_max=settings.console_viewers_max,
            sight=sight,
            terms=terms_of(settings),
            rows=_rows(settings, reader),
        )
    )


def _rows(settings: Settings, reader: Reader | None) -> Rows | None:
    database = database_of(settings.lane)
    if reader is not None:
        return ReaderRows(reader, database)
    if not settings.clickhouse_host:
        return None
    # Nothing connects before the first question.
    return StoreRows(NativeStore(server_of(settings), database, settings=READER_SETTINGS, create=False))
