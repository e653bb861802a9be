"""Macros and variables are filled in as Grafana does, and what is not known is an error."""

from datetime import UTC, datetime

import pytest

from dashboards.grafana.macros import MacroError, View, expand
from dashboards.grafana.queries import Language, Query

VIEW = View(
    start=datetime(2024, 7, 19, 4, tzinfo=UTC),
    end=datetime(2024, 7, 19, 5, tzinfo=UTC),
    step_seconds=30,
    variables={"ring": ["canary", "o'hare"], "rollout": ["r-1"]},
)


def made(text: str, language: Language = Language.SQL) -> str:
    return expand(Query("a/b", language, "about", text), VIEW)


def test_times_are_seconds_since_the_epoch() -> None:
    assert made("WHERE $__timeFilter(minute)") == (
        "WHERE (minute >= toDateTime(1721361600) AND minute <= toDateTime(1721365200))"
    )


def test_a_macro_may_hold_brackets() -> None:
    assert (
        made("$__timeInterval(if(a > 0, b, c))") == "toStartOfInterval(toDateTime(if(a > 0, b, c)), INTERVAL 30 second)"
    )


def test_several_values_are_quoted() -> None:
    assert made("ring IN (${ring:singlequote})") == "ring IN ('canary','o\\'hare')"


def test_one_value_stands_as_it_is() -> None:
    assert made("rollout = '${rollout}'") == "rollout = 'r-1'"


def test_prometheus_has_its_own() -> None:
    assert (
        made("rate(x[$__rate_interval]) + increase(x[$__range])", Language.PROMQL)
        == "rate(x[60s]) + increase(x[3600s])"
    )


@pytest.mark.parametrize("text", ["${tenant}", "${ring}", "$__dateFilter(x)", "$__timeFilter(minute", "${ring:csv}"])
def test_what_is_not_known_is_an_error(text: str) -> None:
    with pytest.raises(MacroError):
        made(text)
