"""Plots as the bytes that browsers get: drawn once of the same rows, for everybody who asks.

Between the history and the route. Invariant: what is drawn is of the rows that the history gives now; only the drawing
is spared.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from dashboards.console.history import History, Table
from dashboards.console.plots import Drawing

KEPT_MAX = 256


@dataclass(frozen=True, slots=True)
class _Drawn:
    tables: list[Table]
    data: bytes


class PlotAnswers:
    """Draws plots; its methods belong to the event loop."""

    def __init__(self, history: History) -> None:
        """Take what the store keeps."""
        self._history = history
        self._drawn: OrderedDict[tuple[object, ...], _Drawn] = OrderedDict()

    async def json(self, name: str, drawing: Drawing, **values: object) -> bytes:
        """Return a plot as JSON.

        Args:
            name: of the plot.
            drawing: how it is made.
            values: the parameters of its queries.

        Raises:
            HistoryError: there is no store, or it does not answer.
        """
        asked = (self._history.ask(query, drawing.fresh_seconds, **values) for query in drawing.queries)
        tables = [await rows for rows in asked]
        key = (name, *sorted(values.items()))
        known = self._drawn.get(key)
        if known is None or any(was is not now for was, now in zip(known.tables, tables, strict=True)):
            known = _Drawn(tables, await asyncio.to_thread(_encoded, drawing, tables))
            self._drawn[key] = known
            while len(self._drawn) > KEPT_MAX:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(key)
        return known.data


def _encoded(drawing: Drawing, tables: list[Table]) -> bytes:
    return msgspec.json.encode(drawing.draw(*tables))
