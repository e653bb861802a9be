"""The contract suite of the store: every back end is held to what `ingest/store/interface.py` says by the same tests.

A back end subclasses `SqlStoreContract` and says in the `backend` fixture what it is; one that speaks no SQL, as the
in-memory twin, subclasses `StoreContract`, which is the part of the contract that needs none.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ingest.store.interface import MemoryStore, Store, StoreError

UNKNOWN_TABLE, SYNTAX_ERROR, VIOLATED_CONSTRAINT = 60, 62, 469
AT_MS = 1_721_362_140_123
TABLE = """
CREATE TABLE IF NOT EXISTS kinds
(
    number UInt64,
    word LowCardinality(String) DEFAULT 'none',
    at DateTime64(3, 'UTC'),
    minute DateTime('UTC'),
    score Nullable(Float64),
    words Array(String),
    versions Array(Tuple(product String, activated_at Nullable(DateTime64(3, 'UTC')))),
    total SimpleAggregateFunction(max, UInt64)
)
ENGINE = MergeTree ORDER BY number
"""
COLUMNS: dict[str, Any] = {
    "number": (1, 2**64 - 1),
    "at": (AT_MS, 0),
    "minute": [AT_MS // 60_000 * 60, 0],
    "score": (None, -1.5),
    "words": [["a", "it's\t\\", ""], []],
    "versions": [[("driver", None), ("content", AT_MS)], []],
    "total": [7, 0],
}
NASTY = [
    "it's",
    "tab\there",
    "line\nbreak",
    "back\\slash",
    "\\n",
    "'; DROP TABLE kinds; --",
    "ünï🔒",
    "",
    "{x:String}",
    "%s",
]


@dataclass
class Backend:
    """A store under test, and how the tests read what was written."""

    store: Store

    def count(self, table: str = "kinds") -> int:
        """Return how many rows a table has."""
        if isinstance(self.store, MemoryStore):
            return len(self.store.rows(table))
        return int(self.store.query(f"SELECT count() FROM {table}").rows[0][0])


class StoreContract:
    """Inherit, and give the fixture `backend`: an open store whose current database is empty."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, backend: Backend) -> Store:
        backend.store.execute(TABLE)
        return backend.store

    def test_an_insert_without_rows_or_columns_is_nothing(self, store: Store, backend: Backend) -> None:
        store.insert("kinds", {})
        store.insert("kinds", {"number": [], "word": []})
        assert backend.count() == 0

    def test_the_callers_columns_stay_as_they_were(self, store: Store) -> None:
        """An insert that fails is made again with the same columns, so a store may not change them."""
        given = {name: list(values) for name, values in COLUMNS.items()}
        before = {name: [*values] for name, values in given.items()}
        store.insert("kinds", given)
        assert given == before

    def test_columns_of_unlike_lengths_are_refused_whole(self, store: Store, backend: Backend) -> None:
        with pytest.raises(StoreError):
            store.insert("kinds", {"number": [1, 2], "word": ["a"]})
        assert backend.count() == 0
        store.insert("kinds", {"number": [1, 2], "word": ["a", "b"]})
        assert backend.count() == 2

    def test_threads_may_share_a_store(self, store: Store, backend: Backend) -> None:
        failures: list[Exception] = []

        def work(start: int) -> None:
            try:
                for number in range(start, start + 5):
                    store.insert("kinds", {"number": [number], "word": ["w"]})
                    store.query("SELECT 1 AS x")
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(at * 100,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert backend.count() == 20

    def test_a_closed_store_refuses_everything(self, store: Store) -> None:
        store.close()
        store.close()
        for ask in (
            lambda: store.execute("SELECT 1"),
            lambda: store.insert("kinds", {"number": [1]}),
            lambda: store.query("SELECT 1"),
        ):
            with pytest.raises(StoreError, match="closed"):
                ask()


class SqlStoreContract(StoreContract):
    """What a store must do that is a ClickHouse."""

    def test_rows_are_read_back_as_they_were_given(self, store: Store) -> None:
        store.insert("kinds", COLUMNS)
        first, second = store.query("SELECT number, at, minute, score, words, total FROM kinds ORDER BY number").rows
        assert first == [1, "2024-07-19 04:09:00.123", "2024-07-19 04:09:00", None, ["a", "it's\t\\", ""], 7]
        assert second == [2**64 - 1, "1970-01-01 00:00:00.000", "1970-01-01 00:00:00", -1.5, [], 0]
        assert store.query("SELECT versions FROM kinds ORDER BY number").rows[0][0] == [
            {"product": "driver", "activated_at": None},
            {"product": "content", "activated_at": "2024-07-19 04:09:00.123"},
        ]

    def test_a_column_that_is_not_named_takes_its_default(self, store: Store) -> None:
        store.insert("kinds", {"number": [1]})
        assert store.query("SELECT word, score, words FROM kinds").rows == [["none", None, []]]

    @pytest.mark.parametrize(
        "columns",
        [
            {"number": [1, "two"]},
            {"number": [1, -1]},
            {"number": [1, 2**64]},
            {"number": [1, None]},
            {"number": [1, 2], "word": ["a", 5]},
            {"number": [1, 2], "at": [AT_MS, 2**70]},
            {"number": [1, 2], "words": [["a"], [7]]},
            {"nosuch": [1]},
        ],
        ids=["text", "negative", "large", "null", "number", "time", "inside", "column"],
    )
    def test_what_does_not_fit_is_refused_and_the_store_goes_on(
        self, columns: dict[str, list[Any]], store: Store, backend: Backend
    ) -> None:
        with pytest.raises(StoreError):
            store.insert("kinds", columns)
        assert backend.count() == 0
        store.insert("kinds", {"number": [3]})
        assert backend.count() == 1

    def test_one_insert_is_one_block(self, store: Store, backend: Backend) -> None:
        """A materialised view sees an insert whole, however large: the sink's aggregates rest on it."""
        store.execute("CREATE TABLE IF NOT EXISTS seen (rows UInt64) ENGINE = MergeTree ORDER BY rows")
        store.execute("CREATE MATERIALIZED VIEW IF NOT EXISTS seen_mv TO seen AS SELECT count() AS rows FROM kinds")
        rows = 150_000
        store.insert("kinds", {"number": range(rows), "word": ["w"] * rows, "words": [["x" * 40]] * rows})
        assert store.query("SELECT rows FROM seen").rows == [[rows]]
        assert backend.count() == rows

    @pytest.mark.parametrize("text", NASTY)
    def test_a_parameter_is_a_value_and_nothing_else(self, text: str, store: Store) -> None:
        assert store.query("SELECT {x:String} AS x, {n:UInt8} AS n", {"x": text, "n": 5}).rows == [[text, 5]]

    def test_an_array_is_a_parameter(self, store: Store) -> None:
        assert store.query("SELECT {x:Array(String)} AS x", {"x": ["a", "it's"]}).rows == [[["a", "it's"]]]

    def test_an_answer_without_rows_names_its_columns(self, store: Store) -> None:
        answer = store.query("SELECT number, word AS w FROM kinds WHERE 0")
        assert answer.columns == ["number", "w"]
        assert answer.rows == []

    def test_a_large_answer_comes_whole(self, store: Store) -> None:
        rows = store.query("SELECT number, toString(number) AS t FROM numbers(100000) ORDER BY number").rows
        assert len(rows) == 100_000
        assert rows[99_999] == [99_999, "99999"]

    @pytest.mark.parametrize(
        ("question", "code"),
        [("SELECT 1 FROM nosuch", UNKNOWN_TABLE), ("SELEKT 1", SYNTAX_ERROR), ("SELECT x y z", 62)],
    )
    def test_a_refusal_has_clickhouses_code_and_the_store_goes_on(self, question: str, code: int, store: Store) -> None:
        with pytest.raises(StoreError) as caught:
            store.query(question)
        assert caught.value.code == code
        assert f"Code: {code}." in str(caught.value)
        assert store.query("SELECT 1 AS x").rows == [[1]]

    def test_an_error_in_mid_answer_is_an_error(self, store: Store) -> None:
        with pytest.raises(StoreError, match="non-zero"):
            store.query("SELECT throwIf(number = 150000) FROM numbers(200000)")
        assert store.query("SELECT 1 AS x").rows == [[1]]

    def test_what_a_constraint_or_a_view_refuses_is_an_error(self, store: Store, backend: Backend) -> None:
        """An engine that finds out late has to say so still: the sink takes silence for success."""
        store.execute(
            "CREATE TABLE IF NOT EXISTS small (n UInt8, CONSTRAINT c CHECK n < 5) ENGINE = MergeTree ORDER BY n"
        )
        with pytest.raises(StoreError) as caught:
            store.insert("small", {"n": [1, 7]})
        assert caught.value.code == VIOLATED_CONSTRAINT
        assert backend.count("small") == 0
        store.execute("CREATE TABLE IF NOT EXISTS seen (n UInt8) ENGINE = MergeTree ORDER BY n")
        store.execute("CREATE MATERIALIZED VIEW IF NOT EXISTS seen_mv TO seen AS SELECT throwIf(n = 4) AS n FROM small")
        with pytest.raises(StoreError, match="non-zero"):
            store.insert("small", {"n": [4]})
        store.insert("small", {"n": [3]})
        assert store.query("SELECT count() FROM seen").rows == [[1]]

    def test_an_insert_into_no_table_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError):
            store.insert("nosuch", {"number": [1]})
