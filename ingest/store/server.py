"""How ClickHouse is reached: the settings as one checked value, and the one function that chooses the store.

Composition roots call `store_of` and `migrator_of` and do not care which ClickHouse it is. The invariant: what is wrong
in a setting is found when the process starts, and the error names the setting.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from ingest.settings import Settings, SettingsError
from ingest.store.interface import Engines, Store, database_of
from ingest.store.migrate import Migrator, Retention


@dataclass(frozen=True, slots=True)
class Server:
    """A ClickHouse over its native protocol.

    Attributes:
        host: where it is; several with commas between are tried in turn.
        port: its native-protocol port.
        user: who we are.
        password: and how we prove it; never shown.
        tls: speak TLS.
        ca_file: certificates that the server is checked by; empty for the system's.
        compression: of inserted blocks: `lz4`, `zstd` or `none`.
        connect_seconds: how long a connection may take, and the answer to a ping.
        timeout_seconds: how long one send or receive may take.
    """

    host: str
    port: int = 9000
    user: str = "default"
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    compression: str = "lz4"
    connect_seconds: float = 3.0
    timeout_seconds: float = 30.0


def server_of(settings: Settings) -> Server:
    """Return the ClickHouse that the settings name.

    Raises:
        SettingsError: the password or the CA certificates cannot be read.
    """
    if settings.clickhouse_ca_file and not settings.clickhouse_tls:
        raise SettingsError("clickhouse_ca_file is set but clickhouse_tls is not: turn it on")
    if settings.clickhouse_ca_file:
        try:
            ssl.create_default_context(cafile=settings.clickhouse_ca_file)
        except (OSError, ssl.SSLError) as error:
            path = settings.clickhouse_ca_file
            raise SettingsError(f"clickhouse_ca_file {path} holds no certificates that can be read: {error}") from error
    return Server(
        host=settings.clickhouse_host,
        port=settings.clickhouse_port,
        user=settings.clickhouse_user,
        password=_password(settings.clickhouse_password_file),
        tls=settings.clickhouse_tls,
        ca_file=settings.clickhouse_ca_file,
        compression=settings.clickhouse_compression,
        connect_seconds=settings.clickhouse_connect_timeout_ms / 1000,
        timeout_seconds=settings.clickhouse_timeout_ms / 1000,
    )


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        password = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"clickhouse_password_file {path} cannot be read as text: {error}") from error
    if not password:
        raise SettingsError(f"clickhouse_password_file {path} is empty: write the password into it, or set no file")
    return password


def engines_of(settings: Settings) -> Engines:
    """Return the table engines that the settings ask for."""
    if not settings.clickhouse_host or not settings.clickhouse_cluster:
        return Engines()
    return Engines(replicated=True, cluster=settings.clickhouse_cluster, database=database_of(settings.lane))


def store_of(settings: Settings) -> Store:
    """Return the lane's store: the ClickHouse that `clickhouse_host` names, or chdb on the data folder without one.

    Over the network nothing is connected before the first statement; chdb's folder is opened at once.

    Raises:
        SettingsError: a file that the settings name cannot be read.
        StoreError: chdb's folder cannot be opened.
    """
    database = database_of(settings.lane)
    # Imported here: each brings a library of its own (100 MB and a second of start-up for chdb) that the other way
    # never needs.
    if settings.clickhouse_host:
        from ingest.store.native import NativeStore

        return NativeStore(server_of(settings), database, settings.clickhouse_cluster)
    from ingest.store.chdb import ChdbStore

    return ChdbStore(Path(settings.data_dir) / "store", database)


def migrator_of(settings: Settings, store: Store) -> Migrator:
    """Return what brings that store up to date, with engines and retention as the settings say."""
    return Migrator(store, engines_of(settings), Retention(raw_days=settings.raw_retention_days))
