"""Makes what vendors' views are cut from; shared by the embedded Cordon and `cordon signals`.

Invariant: without a store vendors see what stands now and no history; without a registry, what names them exactly.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from deploy.alerts.source import ReaderRows, StoreRows
from deploy.serving.configuration import ConfigurationError
from ingest.gateway.tenants import Role, TokenBook
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.store.interface import Reader, database_of
from ingest.store.native import READER_SETTINGS, NativeStore
from ingest.store.server import server_of
from signals.pagers.registry import Registry, RegistryError
from signals.pagers.registry_book import RegistryBook
from signals.vendors.anonymity import Terms
from signals.vendors.desk import NamedRows, VendorSource


def is_vendor(tokens: TokenBook) -> Callable[[str | None], bool]:
    """Return what tells of an `Authorization` header whether its token is a vendor's."""

    def tells(header: str | None) -> bool:
        principal = tokens.authenticate(header)
        return principal is not None and Role.VENDOR in principal.roles

    return tells


def vendor_source(settings: Settings, metrics: Metrics, reader: Reader | None) -> VendorSource:
    """Return what vendors' views are cut from.

    Args:
        settings: of this process.
        metrics: where a broken registry is told.
        reader: of the store in this process; None where it has none, and then the ClickHouse server of the settings
            is asked, if there is one.

    Raises:
        ConfigurationError: the registry of routes can't be used.
    """
    return VendorSource(
        rows=_rows(settings, reader),
        registry=_registry(settings, metrics),
        terms=Terms(settings.vendor_devices_least, settings.vendor_tenants_least),
        retention_days=settings.raw_retention_days,
    )


def _rows(settings: Settings, reader: Reader | None) -> NamedRows | None:
    if reader is not None:
        return ReaderRows(reader, database_of(settings.lane))
    if not settings.clickhouse_host:
        return None
    # Nothing connects before the first question.
    database = database_of(settings.lane)
    return StoreRows(NativeStore(server_of(settings), database, settings=READER_SETTINGS, create=False))


def _registry(settings: Settings, metrics: Metrics) -> Callable[[], Registry | None]:
    if not settings.routes_file:
        return lambda: None
    try:
        book = RegistryBook(Path(settings.routes_file), metrics)
    except RegistryError as error:
        raise ConfigurationError(f"{error}. `cordon routes check FILE` checks a file") from error
    lock = threading.Lock()

    def current() -> Registry:
        with lock:
            book.reload_if_changed()
            return book.current

    return current
