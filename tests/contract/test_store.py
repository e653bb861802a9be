"""Every store of this repository, held to the contract: in process, over TCP, in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.store.chdb import ChdbStore
from ingest.store.interface import MemoryStore
from ingest.store.native import NativeStore
from ingest.store.server import Server
from support.clickhouse.process import ClickHouseProcess
from support.store_contract import Backend, SqlStoreContract, StoreContract


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep one chdb open for all tests of this module."""
    path = tmp_path_factory.mktemp("chdb")
    keeper = ChdbStore(path, "keeper")
    yield path
    keeper.close()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    name = f"{request.cls.__name__}_{request.node.name}"
    return "t_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:100]


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return Backend(MemoryStore())


class TestChdbStore(SqlStoreContract):
    @pytest.fixture
    def backend(self, engine: Path, database: str) -> Iterator[Backend]:
        store = ChdbStore(engine, database)
        yield Backend(store)
        store.close()


class TestNativeStore(SqlStoreContract):
    @pytest.fixture(params=["lz4"])
    def compression(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def backend(self, clickhouse: ClickHouseProcess, database: str, compression: str) -> Iterator[Backend]:
        store = NativeStore(Server("127.0.0.1", clickhouse.port, compression=compression), database)
        yield Backend(store)
        store.close()


class TestNativeStoreZstd(TestNativeStore):
    @pytest.fixture
    def compression(self) -> str:
        return "zstd"


class TestNativeStoreUncompressed(TestNativeStore):
    @pytest.fixture
    def compression(self) -> str:
        return "none"
