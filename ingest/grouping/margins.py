"""Margins: devices at risk by exact OS build and by model, over all cells of a rollout.

Harm that only one model or build has drowns in the cells of a whole fleet, and cells by model would be too many to
compare. So builds and models are counted beside the cells: each margin is a second division of the same devices.
Counted in the pass that counts the tables afresh, so both are said of the same devices.

A product keeps 64 builds and 64 models apart, the first that had a device at risk when its tables were counted; all
others are `other`, and so are those that are unknown or beyond the dictionaries. A product that is no longer under
watch is forgotten with its margins.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.grouping.columns import Dictionaries
from ingest.grouping.fleet import Rows
from ingest.tenancy import GROUPS
from ingest.windows import MarginRisk

MARGINS_MAX = 64
OTHER: Final = "other"
_OTHER, _UNMET = MARGINS_MAX, -1
_WITHIN = GROUPS * 2  # places within one margin: tenant group and arm
TABLE = (MARGINS_MAX + 1) * _WITHIN
_FIELDS = {"build": "os_build", "model": "model"}

Numbers = npt.NDArray[Any]
Table = npt.NDArray[np.int64]
Tables = dict[str, Table]


class Kept:
    """Which of a dictionary's numbers one product keeps apart.

    Attributes:
        numbers: those kept apart, in the order in which they were first seen with devices at risk.
    """

    def __init__(self, texts: list[str], numbers: Sequence[int] = ()) -> None:
        """Begin with the numbers of a snapshot, or none.

        Args:
            texts: the dictionary's texts, which grow.
            numbers: at most 64.
        """
        self._texts = texts
        self._index = np.zeros(0, np.int16)
        self.numbers: list[int] = []
        self._grow()
        for number in numbers[:MARGINS_MAX]:
            self._take(number)

    def places(self, numbers: Numbers, meet: bool) -> Numbers:
        """Return each number's margin, 0 to 64 (`other`), shape (n,).

        Args:
            numbers: of the dictionary, shape (n,).
            meet: whether numbers that were not seen before are kept apart from now on, while there is room.
        """
        self._grow()
        found = self._index[numbers]
        unmet = found == _UNMET
        if unmet.any():
            for number in np.unique(numbers[unmet]).tolist() if meet else ():
                self._take(number)
            found[unmet] = self._index[numbers[unmet]] if meet else _OTHER
        return found

    def text(self, margin: int) -> str:
        """Return the text of a margin, 0 to 64."""
        return OTHER if margin == _OTHER else self._texts[self.numbers[margin]]

    def _take(self, number: int) -> None:
        # A device may call itself `other`, which must not become a second margin of that name.
        if len(self.numbers) >= MARGINS_MAX or self._texts[number] == OTHER:
            self._index[number] = _OTHER
            return
        self._index[number] = len(self.numbers)
        self.numbers.append(number)

    def _grow(self) -> None:
        size = len(self._texts)
        if size > len(self._index):
            grown = np.full(-(-size // 256) * 256, _UNMET, np.int16)
            grown[: len(self._index)] = self._index
            grown[0] = _OTHER
            self._index = grown


class Margins:
    """The margins of one partition's products."""

    def __init__(self, words: Dictionaries) -> None:
        """Start with no product."""
        self._words = words
        self._kept: dict[int, dict[str, Kept]] = {}

    def count(self, product: int, rows: Rows, places: Numbers, tables: Tables, meet: bool) -> None:
        """Add devices to a rollout's margin tables.

        Args:
            product: number of the rollout's product.
            rows: device rows, shape (n,).
            places: each device's place in the rollout's count table, -1 where it is not at risk, shape (n,).
            tables: by name (`build`, `model`), shape (TABLE,) each.
            meet: whether builds and models not seen before may be kept apart from now on.
        """
        at_risk = places >= 0
        if not at_risk.any():
            return
        whole = bool(at_risk.all())
        within = (places if whole else places[at_risk]) & (_WITHIN - 1)
        for name, kept in self._of(product).items():
            numbers = rows[_FIELDS[name]]
            margin = kept.places(numbers if whole else numbers[at_risk], meet)
            margin *= _WITHIN
            margin += within
            tables[name] += np.bincount(margin, minlength=TABLE)

    def said(self, product: int, tables: Tables) -> list[MarginRisk]:
        """Return tables as they go on the wire, those without a device left out."""
        found = []
        for name, kept in self._of(product).items():
            pairs = np.unique(np.flatnonzero(tables[name]) >> 1)
            both = tables[name].reshape(-1, 2)[pairs].tolist()
            for pair, (control, exposed) in zip(pairs.tolist(), both, strict=True):
                margin, group = divmod(pair, GROUPS)
                found.append(MarginRisk(f"{name}={kept.text(margin)}", group, exposed, control))
        return found

    def texts(self, product: int, rows: Rows) -> list[tuple[str, str]]:
        """Return the build and model of each row as the product's margins name them, shape (n,)."""
        kept = self._of(product)
        columns = [
            [kept[name].text(margin) for margin in kept[name].places(rows[field], meet=False).tolist()]
            for name, field in _FIELDS.items()
        ]
        return list(zip(*columns, strict=True))

    def keep(self, products: set[int]) -> None:
        """Forget all products but these."""
        self._kept = {product: kept for product, kept in self._kept.items() if product in products}

    def state(self) -> dict[int, tuple[list[int], list[int]]]:
        """Return the numbers of builds and models kept apart, by product."""
        return {product: (kept["build"].numbers, kept["model"].numbers) for product, kept in self._kept.items()}

    def load(self, state: dict[int, tuple[list[int], list[int]]]) -> None:
        """Take over what `state` gave."""
        self._kept = {product: self._made(builds, models) for product, (builds, models) in state.items()}

    def knows(self, product: int) -> bool:
        """Tell whether any build or model of the product is kept apart."""
        return any(kept.numbers for kept in self._kept.get(product, {}).values())

    def _of(self, product: int) -> dict[str, Kept]:
        if product not in self._kept:
            self._kept[product] = self._made()
        return self._kept[product]

    def _made(self, builds: Sequence[int] = (), models: Sequence[int] = ()) -> dict[str, Kept]:
        words = self._words
        return {"build": Kept(words.os_builds.texts, builds), "model": Kept(words.models.texts, models)}


def empty_tables() -> Tables:
    """Return tables without a device."""
    return {name: np.zeros(TABLE, np.int64) for name in _FIELDS}
