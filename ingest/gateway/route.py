"""From parsed reports to partitions: pseudonymise, sort, and notice versions not seen before.

The hot loop of the gateway: about a microsecond a report. The invariant: after it no report carries the device's own
name, each carries its tenant, and each lies in the partition of its pseudonym.
"""

from collections.abc import Sequence, Set
from typing import NamedTuple

from ingest.events import CheckIn, Installed, Offered, Report
from ingest.gateway.pseudonym import Pseudonyms
from ingest.topics import partition_of

Update = tuple[str, str, str]
_UPDATES = (Offered, Installed)


class Routed(NamedTuple):
    """How many reports went which way, and those that name a version not seen before."""

    activity: int
    crashes: int
    newcomers: list[Offered | Installed]


def route(
    reports: Sequence[Report],
    tenant: str,
    pseudonyms: Pseudonyms,
    seen: Set[Update],
    activity: Sequence[list[Report]],
    crashes: Sequence[list[Report]],
) -> Routed:
    """Append each report to its partition's list.

    Args:
        reports: checked reports, changed in place: `device` becomes the pseudonym, `tenant` is filled in.
        tenant: the tenant of reports that name none.
        pseudonyms: the installation's.
        seen: (vendor, product, version) of rollouts known already.
        activity: a list for each partition, appended to.
        crashes: likewise, for crash reports.
    """
    partitions = len(activity)
    newcomers: list[Offered | Installed] = []
    crashed = 0
    last = tenant
    base = pseudonyms.base(tenant)
    for report in reports:
        if report.tenant and report.tenant != last:
            last = report.tenant
            base = pseudonyms.base(last)
        report.tenant = last
        state = base.copy()
        state.update(report.device.encode())
        report.device = name = state.hexdigest()
        partition = partition_of(name, partitions)
        if isinstance(report, CheckIn):
            activity[partition].append(report)
        elif isinstance(report, _UPDATES):
            activity[partition].append(report)
            if (report.vendor, report.product, report.version) not in seen:
                newcomers.append(report)
        else:
            crashes[partition].append(report)
            crashed += 1
    return Routed(len(reports) - crashed, crashed, newcomers)
