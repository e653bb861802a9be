"""`cordon migrate` and `cordon query` against a ClickHouse server, by settings alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.cli.main import main
from deploy.cli.rendering import FORMATS
from ingest.store.interface import Rows
from ingest.store.migrate import load_migrations
from ingest.store.native import NativeStore
from ingest.store.server import Server
from support.clickhouse.process import ClickHouseProcess


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as process:
        yield process


def run(clickhouse: ClickHouseProcess, *arguments: str) -> Result:
    settings = {"CORDON_CLICKHOUSE_HOST": "127.0.0.1", "CORDON_CLICKHOUSE_PORT": str(clickhouse.port)}
    return CliRunner().invoke(main, arguments, env=settings)


def test_migrate_brings_the_server_up_to_date_and_query_reads_it(clickhouse: ClickHouseProcess) -> None:
    missing = run(clickhouse, "migrate", "status")
    assert missing.output.count("missing") == len(load_migrations())
    done = run(clickhouse, "migrate", "apply")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, f"{len(load_migrations())} applied")
    assert run(clickhouse, "migrate", "apply").output == "0 applied\n"
    store = NativeStore(Server("127.0.0.1", clickhouse.port), "cordon")
    for _ in range(2):
        store.insert(
            "check_in_minutes", {"minute": [1_721_362_140], "tenant": ["a\tb"], "check_ins": [5], "block": [1]}
        )
    store.close()
    asked = run(clickhouse, "query", "SELECT minute, tenant, check_ins FROM check_in_minutes", "--format", "TSV")
    assert (asked.exit_code, asked.output) == (0, "2024-07-19 04:09:00\ta\\tb\t5\n"), "FINAL is the reader's default"
    named = ("check_ins", "--param", "from=2024-07-19 00:00:00", "--param", "to=2024-07-20 00:00:00")
    assert "2024-07-19 04:09:00  5" in run(clickhouse, "query", *named).output


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE check_in_minutes", "only reads"),
        ("INSERT INTO check_in_minutes (block) VALUES (1)", "only reads"),
        ("SELECT * FROM file('/etc/passwd')", "reaches outside"),
        ("SELECT 1 SETTINGS readonly = 0", "readonly"),
        ("SELECT nosuch", "Code: 47"),
    ],
)
def test_anything_but_reading_is_refused(sql: str, said: str, clickhouse: ClickHouseProcess) -> None:
    refused = run(clickhouse, "query", sql)
    assert refused.exit_code == 1
    assert said in refused.output


def test_a_format_that_only_a_server_writes_is_named(clickhouse: ClickHouseProcess) -> None:
    refused = run(clickhouse, "query", "SELECT 1", "--format", "Parquet")
    assert refused.exit_code == 1
    assert "JSONEachRow" in refused.output


def test_a_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    settings = {"CORDON_CLICKHOUSE_HOST": "127.0.0.1", "CORDON_CLICKHOUSE_PORT": "1"}
    for command in (("query", "SELECT 1"), ("migrate", "status")):
        done = CliRunner().invoke(main, command, env=settings)
        assert done.exit_code == 1
        assert "ClickHouse at 127.0.0.1:1 is away" in done.output
        assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("TSV", 'x\\ty\t1\t\\N\t["a"]\n'),
        ("TSVWithNames", 'w\tn\to\tl\nx\\ty\t1\t\\N\t["a"]\n'),
        ("CSV", '"x\ty",1,"\\N","[""a""]"\n'),
        ("JSONEachRow", '{"w":"x\\ty","n":1,"o":null,"l":["a"]}\n'),
        ("JSONCompactEachRow", '["x\\ty",1,null,["a"]]\n'),
        ("PrettyCompactMonoBlock", 'w     n  o     l\n----  -  ----  -----\nx\\ty  1  NULL  ["a"]\n'),
    ],
)
def test_formats(form: str, text: str) -> None:
    assert FORMATS[form](Rows(["w", "n", "o", "l"], [["x\ty", 1, None, ["a"]]])) == text
