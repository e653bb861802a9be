"""What every page has: the strip that is read in three seconds.

Invariant: a page's values are the same for everybody who may look at it, since they are rendered once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dashboards.console.decisions import Decisions
from dashboards.console.overview import Overviews
from ingest.clock import Clock
from signals.delivery.service import StreamService
from signals.killswitch.lease import LeaseTerms
from signals.pagers.board import PagerBoard

STRIP = "strip"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where pages look.

    Attributes:
        service: views, alerts, log, topics, metrics, keys.
        overviews: all rollouts at a glance.
        decisions: the newest kill-switch events.
        pagers: what is told to whom.
        clock: the wall clock.
        terms: of the lane's leases; None where it has none.
        lane: the lane's name.
        store: whether there is a store.
    """

    service: StreamService
    overviews: Overviews
    decisions: Decisions
    pagers: PagerBoard
    clock: Clock
    terms: LeaseTerms | None
    lane: str
    store: bool


@dataclass(frozen=True, slots=True)
class BasePage:
    """What pages have alike.

    Attributes:
        sources: where they look.
        key: what is alike for everybody who looks at the same.
        title: in the browser's title and heading.
        place: which entry of the navigation is current.
        template: of the whole page.
        sections: those that change.
    """

    sources: Sources
    key: str
    title: str
    place: str
    template: str
    sections: tuple[str, ...] = ()

    def stamp(self) -> object:
        """Return what is another when what this page has for itself may have changed."""
        return self.sources.overviews.stamp()

    def stamps(self) -> Mapping[str, object]:
        """Return, of each section, what is another when it may have changed; the strip is of all rollouts."""
        everything, own = self.sources.overviews.stamp(), self.stamp()
        return {name: everything if name == STRIP else own for name in self.sections}

    def values(self) -> dict[str, Any]:
        """Return what all sections show."""
        return {"overview": self.sources.overviews.now(), "lane": self.sources.lane, "store": self.sources.store}

    def values_of(self, sections: Collection[str]) -> dict[str, Any]:
        """Return what some sections show: for the strip alone nothing of the page's own is asked for."""
        return BasePage.values(self) if set(sections) <= {STRIP} else self.values()
