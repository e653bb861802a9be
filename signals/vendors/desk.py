"""Where vendors ask: days that are complete, cut from the store once, and what the views hold now.

Between the routes and the pure parts beside it. Invariants: only whole days are told, each only when nothing of it can
change any more (what was received later is left out for ever), so answers for a day agree whenever they are asked for;
and the number of answers held, of days and of products is bounded.
"""

import datetime as dt
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from ingest.clock import Clock
from signals.delivery.views import Views
from signals.pagers.registry import Registry
from signals.vendors.anonymity import Terms
from signals.vendors.compat import ordered, product_pairs
from signals.vendors.feed import IncidentFeed, incidents
from signals.vendors.health import product_health
from signals.vendors.owning import Owning
from signals.vendors.rollouts import rollouts_of
from signals.vendors.words import ProductHealth, VendorCompatibility, VendorHealth, VendorPair, Window

DAY_MS: Final = 86_400_000
# What a device posts later than this after a day's end is in no vendor's numbers.
LATE_MS: Final = 2 * 3_600_000
# The store has heard of something so much later: what was received before is in it.
MARGIN_MS: Final = 3_600_000
WINDOWS_MAX: Final = 13
LOOK_BACK_DAYS: Final = 14
PRODUCTS_MAX: Final = 64
COMPAT_PRODUCTS_MAX: Final = 8
# A query of the compatibility matrix holds so many devices at once (`cordon compat`).
COMPAT_DEVICES_MAX: Final = 100_000
_ANSWERS_MAX: Final = 256
_Answer = TypeVar("_Answer")


class NamedRows(Protocol):
    """A store that answers named queries."""

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows.

        Raises:
            StoreError: it is away, busy, or the query is more than it takes.
        """
        ...


class UnknownDayError(ValueError):
    """A day that is not told of; the message says which are."""


@dataclass(frozen=True, slots=True)
class VendorSource:
    """What the composition root hands over for vendors' views.

    Attributes:
        rows: the store; None without one, and then there is no history.
        registry: gives the registry of routes in force; None where there is none.
        terms: how large a group must be to be told of.
        retention_days: how long the store keeps raw crashes and installs.
    """

    rows: NamedRows | None = None
    registry: Callable[[], Registry | None] = lambda: None
    terms: Terms = field(default_factory=Terms)
    retention_days: int = 30


NO_SOURCE: Final = VendorSource()


class VendorDesk:
    """Answers for vendors; called from worker threads, any number at a time."""

    def __init__(self, views: Views, clock: Clock, source: VendorSource) -> None:
        """Take the views of the lane, the clock that rings start by, and where history comes from."""
        self._views, self._clock, self._source = views, clock, source
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[object, ...], Any] = OrderedDict()

    def owning(self, vendors: frozenset[str]) -> Owning:
        """Return what these vendors own now."""
        return Owning(vendors, self._source.registry())

    def health(self, vendors: frozenset[str], day: str | None) -> VendorHealth:
        """Return the crash rates of a day (the last one, if None) and the rollouts as they stand.

        Raises:
            UnknownDayError: that day is not told of.
            StoreError: the store is away or busy.
        """
        owning, terms = self.owning(vendors), self._source.terms
        windows = self._windows()
        window = _chosen(windows, day)
        return VendorHealth(
            vendors=sorted(vendors),
            devices_least=terms.devices,
            tenants_least=terms.tenants,
            window=window,
            windows=[one.day for one in windows],
            products=[]
            if window is None
            else self._once(("health", owning, window), lambda: self._look(owning, window)),
            rollouts=rollouts_of(self._views, owning, terms, self._clock.now_ms()),
        )

    def incidents(self, vendors: frozenset[str]) -> IncidentFeed:
        """Return the incidents of these vendors and of those that share with them."""
        return incidents(self._views, self.owning(vendors), self._source.terms, self._clock.now_ms())

    def compatibility(self, vendors: frozenset[str]) -> VendorCompatibility:
        """Return the pairs of the two weeks before the last complete day's end.

        Raises:
            StoreError: the store is away or busy.
        """
        owning = self.owning(vendors)
        windows = self._windows()
        window = windows[-1] if windows else None
        pairs, left_out = (
            ([], 0) if window is None else self._once(("compat", owning, window), lambda: self._pairs(owning, window))
        )
        return VendorCompatibility(vendors=sorted(vendors), window=window, pairs=pairs, left_out=left_out)

    def _windows(self) -> list[Window]:
        """Return the days that are complete and of which nothing is lost yet, oldest first."""
        rows = self._source.rows
        if rows is None:
            return []
        newest_ms = int(rows.rows("vendor_horizon")[0][0])
        last = (newest_ms - LATE_MS - MARGIN_MS) // DAY_MS  # the first day that is not complete
        # A day needs the two weeks before it: where rows go after thirty days, days up to a fortnight old are told.
        days = min(WINDOWS_MAX, self._source.retention_days - LOOK_BACK_DAYS - 2)
        return [_window(day) for day in range(max(0, last - max(0, days)), last)]

    def _look(self, owning: Owning, window: Window) -> list[ProductHealth]:
        rows = self._source.rows
        assert rows is not None
        span = _span(window)
        found = []
        for vendor, product in self._products(owning, window)[:PRODUCTS_MAX]:
            named = {"vendor": vendor, "product": product, "to": span["to"], "before": span["before"]}
            health = product_health(
                vendor,
                product,
                rows.rows("vendor_crashes", **named, **{"from": span["from"]}),
                rows.rows("vendor_devices", **named, since=span["since"]),
                owning.owns_module,
                self._source.terms,
            )
            found += [health] if health is not None else []
        return found

    def _products(self, owning: Owning, window: Window) -> list[tuple[str, str]]:
        rows = self._source.rows
        assert rows is not None
        span = _span(window)
        asked = {"since": span["since"], "to": span["to"], "before": span["before"]}
        named = [(str(vendor), str(product)) for vendor, product in rows.rows("vendor_products", **asked)]
        return [(vendor, product) for vendor, product in named if owning.owns(vendor, product)]

    def _pairs(self, owning: Owning, window: Window) -> tuple[list[VendorPair], int]:
        rows = self._source.rows
        assert rows is not None
        span = _span(window)
        sizes = {(str(row[0]), str(row[1])): int(row[2])
                 for row in rows.rows("compat_products", to=span["to"], limit=1000)}  # fmt: skip
        own = [name for name in sizes if owning.owns(*name)]
        chosen = [name for name in own if sizes[name] <= COMPAT_DEVICES_MAX][:COMPAT_PRODUCTS_MAX]
        pairs: list[VendorPair] = []
        for vendor, product in chosen:
            cells = rows.rows(
                "compat_cells", vendor=vendor, product=product, module="", parts=1, part=0, to=span["to"],
                **{"from": span["since"]},
            )  # fmt: skip
            pairs += product_pairs(f"{vendor}/{product}", cells, owning, self._source.terms)
        return ordered(pairs), len(own) - len(chosen)

    def _once(self, key: tuple[object, ...], make: Callable[[], _Answer]) -> _Answer:
        """Return an answer that was made before, or make it: a day that is complete does not change."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                found: _Answer = self._held[key]
                return found
        made = make()
        with self._lock:
            first: _Answer = self._held.setdefault(key, made)
            while len(self._held) > _ANSWERS_MAX:
                self._held.popitem(last=False)
        return first


def _window(day: int) -> Window:
    return Window(
        day=dt.datetime.fromtimestamp(day * 86_400, dt.UTC).strftime("%Y-%m-%d"),
        from_ms=day * DAY_MS,
        to_ms=(day + 1) * DAY_MS,
        before_ms=(day + 1) * DAY_MS + LATE_MS,
    )


def _chosen(windows: list[Window], day: str | None) -> Window | None:
    if day is None:
        return windows[-1] if windows else None
    for window in windows:
        if window.day == day:
            return window
    known = f"ask for one of {', '.join(one.day for one in windows)}" if windows else "none is complete yet"
    raise UnknownDayError(f"no numbers of {day[:32]!r}: {known}")


def _span(window: Window) -> dict[str, str]:
    since_ms = window.to_ms - LOOK_BACK_DAYS * DAY_MS
    moments = {"from": window.from_ms, "to": window.to_ms, "before": window.before_ms, "since": since_ms}
    return {
        name: dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        for name, at_ms in moments.items()
    }
