"""The list of rollouts, and one rollout's page."""

from dataclasses import dataclass
from typing import Any

from dashboards.console.decisions import read_or_none
from dashboards.console.overview import JUDGED_MS, stop_text
from dashboards.console.pages.common import BasePage, Sources
from dashboards.console.pages.health import samples
from ingest.rollouts import Ring
from signals.delivery.joined import Facts
from signals.killswitch.gate_answer import GateDecision, GateError
from signals.killswitch.lease import WITHHELD_DOCS
from signals.pagers.words import Level

EVENTS_MAX = 50
# A browser paints so many at once; the rest follows where somebody asks for it.
FIRST_ROWS = 50
CELLS_MAX = 12
_SEARCH_MAX = 64


@dataclass(frozen=True, slots=True)
class RolloutsPage(BasePage):
    """Every rollout that is listed, or those that match.

    Attributes:
        search: what is looked for in id, vendor, product and version; empty: everything.
        all: every match, not only those that come first.
    """

    search: str = ""
    all: bool = False

    def values(self) -> dict[str, Any]:
        """Return what the sections show."""
        values = BasePage.values(self)
        wanted = self.search.casefold()
        rows = [
            row
            for row in values["overview"].rows
            if wanted in f"{row.said.rollout} {row.said.vendor} {row.said.product} {row.said.version}".casefold()
        ]
        # Rows come worst first: whatever is stopped is among the first, or makes them more.
        first = len(rows) if self.all else max(FIRST_ROWS, sum(row.stopped for row in rows))
        return values | {"rows": rows[:first], "matching": len(rows), "search": self.search}


def rollouts_page(sources: Sources, search: str, *, everything: bool) -> RolloutsPage:
    """Return the list, of every match or of those that come first; a search that is too long is cut."""
    search = search[:_SEARCH_MAX]
    return RolloutsPage(
        sources,
        f"/rollouts?{'all' if everything else 'first'}&{search}",
        "Rollouts",
        "rollouts",
        "rollouts.html",
        ("strip", "rollouts"),
        search,
        everything,
    )


@dataclass(frozen=True, slots=True)
class RingState:
    """A ring as declared, and where its push stands.

    Attributes:
        ring: as declared.
        devices: how many it has, as was declared; None where that was not told.
        pushed: which part of the push has been through; None before it began.
    """

    ring: Ring
    devices: int | None
    pushed: float | None


class RolloutPage(BasePage):
    """One rollout: what to do and why, evidence, rings, gate, signatures, events."""

    @property
    def rollout(self) -> str:
        """Return the rollout's id."""
        return self.key.removeprefix("/rollouts/")

    def stamp(self) -> object:
        """Return what is another when this rollout may have changed, whatever became of all the others."""
        views = self.sources.service.views
        pending = tuple(one.command_id for one in views.pending() if one.rollout == self.rollout)
        return views.facts(self.rollout), pending, self.sources.clock.now_ms() // JUDGED_MS

    def values(self) -> dict[str, Any]:
        """Return what the sections show.

        Raises:
            KeyError: the rollout is in no topic any more.
        """
        found = self.sources.overviews.row(self.rollout)
        if found is None:
            raise KeyError(self.rollout)
        facts, row = found
        pending = [one for one in self.sources.service.views.pending() if one.rollout == self.rollout]
        at_ms = facts.verdict.at_ms if facts.verdict else 0
        now_ms = self.sources.clock.now_ms() if self.sources.terms is not None else at_ms
        return BasePage.values(self) | {
            "row": row,
            "facts": facts,
            "stops": [(stop_text(stop), stop) for stop in row.said.stops],
            "rings": ring_states(facts, now_ms),
            "gate": self._gate(facts, now_ms),
            "cells_max": CELLS_MAX,
            "events": read_or_none(self.sources.decisions, self.rollout, EVENTS_MAX),
            "pending": pending,
            "withheld_docs": WITHHELD_DOCS,
        }

    def _gate(self, facts: Facts, now_ms: int) -> GateDecision | None:
        rings = facts.declared.rings if facts.declared else []
        upcoming = [ring for ring in rings if ring.starts_at_ms is None or ring.starts_at_ms > now_ms]
        upcoming.sort(key=lambda ring: (ring.starts_at_ms is None, ring.starts_at_ms or 0))
        try:
            return self.sources.overviews.answers.gate(facts, upcoming[0].name, ()) if upcoming else None
        except GateError:
            # The clock moved on between the two looks; the next look asks for the next ring.
            return None


def rollout_page(sources: Sources, rollout: str) -> RolloutPage | None:
    """Return a rollout's page; None for one that is in no topic."""
    facts = sources.service.views.facts(rollout)
    if facts is None or facts.named is None:
        return None
    title = f"{facts.named.product} {facts.named.version}"
    sections = ("strip", "decision", "evidence", "rings", "gate", "verdict_signatures", "events")
    return RolloutPage(sources, f"/rollouts/{rollout}", title, "rollouts", "rollout.html", sections)


def ring_states(facts: Facts, now_ms: int) -> list[RingState]:
    """Return the declared rings and how far the push to each has come."""
    if facts.declared is None:
        return []
    return [
        RingState(ring, facts.declared.ring_devices.get(ring.name), _pushed(ring, now_ms))
        for ring in facts.declared.rings
    ]


def _pushed(ring: Ring, now_ms: int) -> float | None:
    if ring.starts_at_ms is None or ring.starts_at_ms > now_ms:
        return None
    return min(1.0, (now_ms - ring.starts_at_ms) / 1000 / ring.over_seconds) if ring.over_seconds else 1.0


class KillSwitchPage(BasePage):
    """What waits for a person, what is stopped, and what was decided."""

    def values(self) -> dict[str, Any]:
        """Return what the sections show."""
        values = BasePage.values(self)
        return values | {
            "stopped": [row for row in values["overview"].rows if row.stopped],
            "stop_text": stop_text,
            "events": read_or_none(self.sources.decisions, None, 100),
        }


def killswitch_page(sources: Sources) -> KillSwitchPage:
    """Return the page."""
    sections = ("strip", "waiting", "stopped", "events")
    return KillSwitchPage(sources, "/killswitch", "Kill switch", "killswitch", "killswitch.html", sections)


class PagesPage(BasePage):
    """Who is told of what, what waits, what was given up, and what is muted."""

    def values(self) -> dict[str, Any]:
        """Return what the sections show.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        status = self.sources.pagers.status()
        return BasePage.values(self) | {
            "open": [one for one in status.incidents if one.level is not Level.NONE],
            "over": [one for one in status.incidents if one.level is Level.NONE][:30],
            "mutes": status.mutes,
            "paging": any(
                value for _, value in samples(self.sources.service.metrics, ("pagers_up",)).get("pagers_up", ())
            ),
        }


def pages_page(sources: Sources) -> PagesPage:
    """Return the page."""
    return PagesPage(sources, "/pages", "Pages sent", "pages", "pages.html", ("strip", "incidents"))
