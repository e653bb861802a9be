import asyncio
from collections.abc import Mapping

import pytest

from dashboards.console import history
from dashboards.console.history import (
    NO_STORE,
    QUERIES,
    History,
    HistoryError,
    MemoryRows,
    ReaderRows,
    StoreRows,
)
from ingest.store.interface import MemoryStore, Rows, StoreError
from ingest.store.queries import named_queries


def test_however_many_ask_the_store_is_asked_once_in_a_while() -> None:
    async def scenario() -> None:
        now = [0.0]
        rows = MemoryRows({"pagings": [[1]]})
        found = History(rows, lambda: now[0])
        answers = await asyncio.gather(*(found.ask("pagings") for _ in range(100)))
        assert answers == [[[1]]] * 100
        assert len(rows.asked) == 1
        now[0] = history.FRESH_SECONDS + 1
        await found.ask("pagings")
        assert len(rows.asked) == 2

    asyncio.run(scenario())


def test_what_is_not_there_yet_is_asked_for_again_soon() -> None:
    async def scenario() -> None:
        now = [0.0]
        rows = MemoryRows()
        found = History(rows, lambda: now[0])
        assert await found.ask("pagings") == []
        rows.answers["pagings"] = [[1]]
        assert await found.ask("pagings") == []
        now[0] = history.EMPTY_FRESH_SECONDS + 0.1
        assert await found.ask("pagings") == [[1]]

    asyncio.run(scenario())


def test_answers_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT_MAX", 3)

    async def scenario() -> None:
        rows = MemoryRows()
        found = History(rows, lambda: 0.0)
        for number in (*range(5), 0):
            await found.ask("evidence", rollout=f"r-{number}")
        assert len(rows.asked) == 6

    asyncio.run(scenario())


def test_a_failure_is_told_to_all_who_waited_and_asked_again_after_a_while() -> None:
    async def scenario() -> None:
        now = [0.0]
        rows = MemoryRows({"pagings": [[1]]})
        rows.failure = StoreError("Code: 202. two queries are running")
        found = History(rows, lambda: now[0])
        told = await asyncio.gather(*(found.ask("pagings") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, HistoryError) and "two queries" in str(one) for one in told)
        rows.failure = None
        now[0] = history.FRESH_SECONDS + 1
        assert await found.ask("pagings") == [[1]]

    asyncio.run(scenario())


def test_without_a_store_that_is_said() -> None:
    async def scenario() -> None:
        with pytest.raises(HistoryError) as told:
            await History(None).ask("pagings")
        assert str(told.value) == NO_STORE

    asyncio.run(scenario())


def test_a_server_is_asked_with_the_same_text_as_the_store_in_this_process() -> None:
    store = MemoryStore()
    sql = named_queries(QUERIES)["pagings"].sql
    store.answers[sql] = Rows(["at_ms"], [[1], [2]])
    assert StoreRows(store).rows("pagings", {}) == [[1], [2]]

    class Reader:
        def read(self, text: str, form: str, parameters: Mapping[str, str], database: str) -> bytes:
            assert (text, form, dict(parameters), database) == (sql, "JSONCompactEachRow", {}, "cordon")
            return b'[1,"a\\tb"]\n[2,null]\n'

    assert ReaderRows(Reader(), "cordon").rows("pagings", {}) == [[1, "a\tb"], [2, None]]


def test_a_question_with_other_parameters_is_a_mistake_that_shows() -> None:
    with pytest.raises(KeyError, match="other parameters"):
        MemoryRows().rows("evidence", {"rolout": "r-1"})
