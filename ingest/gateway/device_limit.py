"""What one device may post in a second: a device that floods costs grouping far more than it costs the gateway.

Grouping applies a device's reports one after the other, where those of different devices go together: 0.5 ms each. The
invariant: of a device that posts for itself at most `per_second_max` reports are taken in each second of the clock, and
of any device at most that many of one post. A post is a device's own if its first and last report are; a collector that
spreads a device over its posts is bounded by its tenant's rate only, since counting every device of every post would
cost 3 % of it.
"""

from collections import Counter
from collections.abc import Sequence

from ingest.clock import Clock
from ingest.events import Report
from ingest.gateway.parse import Parsed, Refused
from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Outcome, Refusal

# Devices counted in one second; beyond it the count starts anew, which errs on the senders' side.
_COUNTED_MAX = 100_000


class DeviceLimit:
    """Counts the reports of devices that post for themselves."""

    def __init__(self, clock: Clock, per_second_max: int) -> None:
        """Allow each device `per_second_max` reports in a second of `clock`."""
        self._clock = clock
        self._per_second_max = per_second_max
        self._second = 0
        self._counts: dict[tuple[str, str], int] = {}

    def sift(self, parsed: Parsed, tenant: str) -> Parsed:
        """Return what the devices' limits leave of a post, the rest refused.

        Args:
            parsed: a post with at least one report.
            tenant: the tenant of reports that name none.

        Raises:
            RequestRefusedError: they leave nothing.
        """
        reports = parsed.reports
        alone = reports[0].device == reports[-1].device
        if not alone and len(reports) <= self._per_second_max:
            return parsed
        over = self._excess(reports, tenant, self._this_second() if alone else Counter())
        if not over:
            return parsed
        detail = f"the device is over {self._per_second_max} reports a second: post it again"
        if len(over) == len(reports):
            raise RequestRefusedError(Refusal.THROTTLED, detail, 1)
        gone = set(over)
        kept = [place for place in range(len(reports)) if place not in gone]
        refused = [Refused(parsed.indices[place], Outcome.THROTTLED, detail) for place in over]
        return Parsed(
            [reports[place] for place in kept],
            [parsed.indices[place] for place in kept],
            sorted([*parsed.refused, *refused]),
        )

    def _this_second(self) -> dict[tuple[str, str], int]:
        second = self._clock.now_ms() // 1000
        if second != self._second or len(self._counts) > _COUNTED_MAX:
            self._second = second
            self._counts = {}
        return self._counts

    def _excess(self, reports: Sequence[Report], tenant: str, counts: dict[tuple[str, str], int]) -> list[int]:
        """Return the places of the reports that are too many, in order; the others are counted."""
        over = []
        for place, report in enumerate(reports):
            name = (report.tenant or tenant, report.device)
            count = counts.get(name, 0)
            if count < self._per_second_max:
                counts[name] = count + 1
            else:
                over.append(place)
        return over
