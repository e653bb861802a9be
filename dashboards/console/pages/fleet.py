"""The first page: what is stopped, what is rising, and how the fleet fares."""

from typing import Any

from dashboards.console.pages.common import BasePage, Sources
from dashboards.console.plots import HOURS

ALERTS_MAX = 10
NEWEST_MAX = 12


class FleetPage(BasePage):
    """Stopped and rising rollouts, the newest others, crash patterns of no rollout, and plots of the fleet."""

    def values(self) -> dict[str, Any]:
        """Return what the sections show."""
        values = BasePage.values(self)
        overview = values["overview"]
        urgent = [row for row in overview.rows if row.stopped or row.rising]
        others = [row for row in overview.rows if not (row.stopped or row.rising)]
        others.sort(key=lambda row: -row.said.at_ms)
        alerts = self.sources.service.alerts.now()
        return values | {
            "urgent": urgent,
            "others": others[:NEWEST_MAX],
            "alerts": [one for one in alerts.alerts if one.state.value == "open"][:ALERTS_MAX],
            "alerts_status": alerts.status,
        }


def fleet_page(sources: Sources) -> FleetPage:
    """Return the page."""
    return FleetPage(sources, "/", "Fleet", "fleet", "fleet.html", ("strip", "urgent", "others", "patterns"))


def hours_of(text: str | None) -> int | None:
    """Return the hours that a query asks for, six where it asks for none; None for what can't be asked for."""
    found = text or "6"
    return int(found) if found in {str(one) for one in HOURS} else None
