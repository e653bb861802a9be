"""The store over TCP: when it connects, what it checks, and that a broken connection is never used again."""

import datetime
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingest.settings import SettingsError, load
from ingest.store.chdb import ChdbStore
from ingest.store.interface import Engines, StoreError
from ingest.store.native import WRITER_SETTINGS, NativeStore, Setting
from ingest.store.server import Server, engines_of, server_of, store_of
from support.clickhouse.process import ClickHouseProcess

AUTHENTICATION_FAILED, READONLY = 516, 164


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as process:
        yield process


@pytest.fixture
def server(clickhouse: ClickHouseProcess) -> Server:
    clickhouse.order("clear")
    return Server("127.0.0.1", clickhouse.port, timeout_seconds=10)


@pytest.fixture
def store(server: Server, database: str) -> Iterator[NativeStore]:
    store = NativeStore(server, database)
    store.execute("CREATE TABLE IF NOT EXISTS t (n UInt64, w String) ENGINE = MergeTree ORDER BY n")
    yield store
    store.close()


def count(store: NativeStore) -> int:
    return int(store.query("SELECT count() FROM t").rows[0][0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# Connecting.


def test_nothing_is_connected_before_the_first_statement(tmp_path: Path) -> None:
    """A ClickHouse that is away at start is an error of the first statement, and none of a later one."""
    port = free_port()
    store = NativeStore(Server("127.0.0.1", port, connect_seconds=1), "later")
    with pytest.raises(StoreError, match=f"127.0.0.1:{port} is away"):
        store.query("SELECT 1")
    with ClickHouseProcess(tmp_path / "data", "--port", str(port)):
        assert store.query("SELECT currentDatabase() AS d").rows == [["later"]]
    with pytest.raises(StoreError, match="away"):
        store.query("SELECT 1")
    store.close()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = NativeStore(Server("127.0.0.1", listener.getsockname()[1], timeout_seconds=0.5), "cordon")
        started = time.monotonic()
        with pytest.raises(StoreError, match="away or broke off"):
            store.query("SELECT 1")
        assert time.monotonic() - started < 3
        store.close()


def test_the_next_host_is_tried(server: Server, database: str) -> None:
    hosts = Server(f"127.0.0.2,{server.host}", server.port, connect_seconds=1)
    store = NativeStore(hosts, database)
    assert store.query("SELECT 1 AS x").rows == [[1]]
    store.close()


def test_a_connection_that_broke_is_replaced_and_knows_its_database(
    store: NativeStore, clickhouse: ClickHouseProcess, database: str
) -> None:
    store.insert("t", {"n": [1], "w": ["a"]})
    clickhouse.order("refuse")
    with pytest.raises(StoreError):
        store.query("SELECT 1")
    clickhouse.order("admit")
    assert store.query("SELECT currentDatabase() AS d, count() AS c FROM t").rows == [[database, 1]]


def test_a_wrong_password_is_said_as_clickhouse_says_it(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("right\n")
    with ClickHouseProcess(tmp_path / "data", "--user", "cordon", "--password", "right") as process:
        settings = load(
            {}, None, clickhouse_host="127.0.0.1", clickhouse_port=process.port, clickhouse_user="cordon",
            clickhouse_password_file=str(password), clickhouse_compression="zstd",
        )  # fmt: skip
        store = store_of(settings)
        assert store.query("SELECT 1 AS x").rows == [[1]]
        store.close()
        wrong = NativeStore(Server("127.0.0.1", process.port, "cordon", "wrong"), "cordon")
        with pytest.raises(StoreError, match="Authentication failed") as caught:
            wrong.query("SELECT 1")
        assert caught.value.code == AUTHENTICATION_FAILED
        assert "right" not in repr(server_of(settings))


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate of its own for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


def test_tls_is_spoken_and_the_server_is_checked(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, "server")
    other, _ = certificate(tmp_path, "other")
    with ClickHouseProcess(tmp_path / "data", "--certificate", str(pem), "--key", str(key)) as process:
        store = NativeStore(Server("127.0.0.1", process.port, tls=True, ca_file=str(pem)), "cordon")
        store.execute("CREATE TABLE t (n UInt64, w String) ENGINE = MergeTree ORDER BY n")
        store.insert("t", {"n": range(100_000), "w": ["x" * 50] * 100_000})
        assert count(store) == 100_000
        store.close()
        for ca_file in (str(other), ""):
            wrong = NativeStore(Server("127.0.0.1", process.port, tls=True, ca_file=ca_file), "cordon")
            with pytest.raises(StoreError, match=r"(?i)certificate"):
                wrong.query("SELECT 1")
        plain = NativeStore(Server("127.0.0.1", process.port, timeout_seconds=2), "cordon")
        with pytest.raises(StoreError):
            plain.query("SELECT 1")


# Settings.


def test_a_setting_that_the_server_does_not_know_is_an_error_unless_it_may_be_missing(
    server: Server, database: str
) -> None:
    """A server too old for a setting would silently do without it; the store refuses to write to such a one."""
    store = NativeStore(server, database, settings=(*WRITER_SETTINGS, Setting(("setting_of_the_future",), 1)))
    with pytest.raises(StoreError, match="does not know setting_of_the_future"):
        store.query("SELECT 1")
    optional = NativeStore(
        server, database, settings=(Setting(("from_the_future", "max_threads"), 1), Setting(("nosuch",), 1, False))
    )
    assert optional.query("SELECT getSetting('max_threads') AS x").rows == [[1]]
    optional.close()


def test_every_statement_has_the_writers_settings(store: NativeStore) -> None:
    asked = ", ".join(f"toString(getSetting('{setting.names[0]}'))" for setting in WRITER_SETTINGS)
    said = [{"false": "0", "true": "1"}.get(value, value) for value in store.query(f"SELECT {asked}").rows[0]]
    assert said == [str(setting.value) for setting in WRITER_SETTINGS]


def test_a_read_only_store_is_refused_by_the_server(store: NativeStore, server: Server, database: str) -> None:
    reader = NativeStore(server, database, settings=(Setting(("readonly",), 1),), create=False)
    assert reader.query("SELECT count() AS c FROM t WHERE w = {w:String}", {"w": "a"}).rows == [[0]]
    asks: list[Callable[[], None]] = [
        lambda: reader.insert("t", {"n": [1]}),
        lambda: reader.execute("DROP TABLE t"),
        lambda: reader.execute("CREATE TABLE u (n UInt8) ENGINE = Memory"),
    ]
    for ask in asks:
        with pytest.raises(StoreError) as caught:
            ask()
        assert caught.value.code == READONLY
    assert count(store) == 0


def test_the_settings_choose_the_store(tmp_path: Path) -> None:
    over_tcp = store_of(load({}, None, clickhouse_host="clickhouse.example", lane="replay-1"))
    assert isinstance(over_tcp, NativeStore)
    assert over_tcp.database == "cordon_replay_1"
    assert engines_of(load({}, None, clickhouse_cluster="main")) == Engines()
    there = load({}, None, clickhouse_host="h", clickhouse_cluster="main", lane="replay-1")
    assert engines_of(there) == Engines(replicated=True, cluster="main", database="cordon_replay_1")
    missing = str(tmp_path / "nosuch")
    for wrong in ({"clickhouse_password_file": missing}, {"clickhouse_tls": True, "clickhouse_ca_file": missing}):
        with pytest.raises(SettingsError, match=next(reversed(wrong))):
            server_of(load({}, None, clickhouse_host="h", **wrong))
    with pytest.raises(SettingsError, match="clickhouse_tls"):
        server_of(load({}, None, clickhouse_host="h", clickhouse_ca_file=missing))


def test_chdb_is_the_store_where_no_host_is_set(engine: ChdbStore, engine_path: Path, tmp_path: Path) -> None:
    link = tmp_path / "data"
    link.mkdir()
    (link / "store").symlink_to(engine_path)
    store = store_of(load({}, None, data_dir=str(link)))
    assert isinstance(store, ChdbStore)
    store.close()


# A connection lost in mid-insert.


@pytest.mark.parametrize(("moment", "written"), [("within", 0), ("before", 0), ("fail", 0), ("after", 3)])
@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_an_insert_that_broke_off_raises_and_the_next_one_goes_through(
    moment: str, written: int, compression: str, server: Server, database: str, clickhouse: ClickHouseProcess
) -> None:
    """Whether the rows are in is for the caller to find out; that it is asked again on a clean connection is ours."""
    store = NativeStore(Server("127.0.0.1", server.port, compression=compression, timeout_seconds=10), database)
    store.execute("CREATE TABLE IF NOT EXISTS t (n UInt64, w String) ENGINE = MergeTree ORDER BY n")
    clickhouse.order(f"{moment} 1")
    rows: dict[str, list[Any]] = {"n": [1, 2, 3], "w": ["x" * 1_000_000] * 3}
    with pytest.raises(StoreError):
        store.insert("t", rows)
    deadline = time.monotonic() + 5
    while count(store) != written and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count(store) == written
    store.insert("t", rows)
    assert count(store) == written + 3
    store.close()


def test_a_server_that_falls_silent_in_mid_insert_is_given_up(
    database: str, clickhouse: ClickHouseProcess, store: NativeStore
) -> None:
    """What it answers at last goes to a connection that is closed, and is not taken for the next answer."""
    hasty = NativeStore(Server("127.0.0.1", clickhouse.port, timeout_seconds=0.5), database)
    clickhouse.order("stall 1 t 1.5")
    started = time.monotonic()
    with pytest.raises(StoreError, match="away or broke off"):
        hasty.insert("t", {"n": [1], "w": ["a"]})
    assert time.monotonic() - started < 1.4
    assert hasty.query("SELECT 7 AS x").rows == [[7]]
    assert count(store) == 1
    hasty.close()
