"""What Grafana makes of a query before it is run: variables filled in, macros expanded.

For whoever runs the boards' queries without a Grafana: the tests, and the pictures in the README. Only what the boards
use is known. Sources: Grafana's variable formats (`${name:singlequote}`), the macros of the ClickHouse data source
(README of grafana/clickhouse-datasource) and of the Prometheus data source.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dashboards.grafana.queries import Language, Query

_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}")
_CALL = re.compile(r"\$__(timeFilter|timeInterval)\(")
_LEFT = re.compile(r"\$__\w+|\$\{")


class MacroError(Exception):
    """A query uses a variable or macro that is not known here."""


@dataclass(frozen=True, slots=True)
class View:
    """What a person looks at.

    Attributes:
        start: begin of the time range.
        end: its end.
        step_seconds: seconds a point stands for.
        variables: the chosen values by variable.
    """

    start: datetime
    end: datetime
    step_seconds: int
    variables: Mapping[str, Sequence[str]]


def expand(query: Query, view: View) -> str:
    """Return the query as Grafana sends it.

    Raises:
        MacroError: a variable has no value, or a macro is not known here.
    """
    text = _VARIABLE.sub(lambda match: _value(match, view, query.name), query.text)
    text = _sql(text, view) if query.language is Language.SQL else _promql(text, view)
    if (left := _LEFT.search(text)) is not None:
        raise MacroError(f"query {query.name!r}: {left.group()} is not known here")
    return text


def _value(match: re.Match[str], view: View, name: str) -> str:
    variable, form = match.groups()
    values = view.variables.get(variable)
    if not values:
        raise MacroError(f"query {name!r}: variable {variable!r} has no value")
    if form == "singlequote":
        return ",".join("'" + value.replace("'", "\\'") + "'" for value in values)
    if form is None and len(values) == 1:
        return values[0]
    raise MacroError(f"query {name!r}: variable {variable!r} with {len(values)} values in form {form!r}")


def _sql(text: str, view: View) -> str:
    start, end = (f"toDateTime({int(moment.astimezone(UTC).timestamp())})" for moment in (view.start, view.end))
    while (call := _CALL.search(text)) is not None:
        close = _closing(text, call.end())
        inner = text[call.end() : close]
        if call.group(1) == "timeFilter":
            made = f"({inner} >= {start} AND {inner} <= {end})"
        else:
            made = f"toStartOfInterval(toDateTime({inner}), INTERVAL {view.step_seconds} second)"
        text = text[: call.start()] + made + text[close + 1 :]
    for macro, value in (("fromTime", start), ("toTime", end), ("interval_s", str(view.step_seconds))):
        text = text.replace(f"$__{macro}", value)
    return text


def _promql(text: str, view: View) -> str:
    span = int((view.end - view.start).total_seconds())
    # At least four scrapes, as Grafana has it; a minute where the scrape interval is not known.
    rate = max(view.step_seconds + 15, 60)
    return text.replace("$__rate_interval", f"{rate}s").replace("$__range", f"{span}s")


def _closing(text: str, start: int) -> int:
    depth = 1
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    raise MacroError(f"a bracket is not closed: {text[start - 20 : start + 40]!r}")
