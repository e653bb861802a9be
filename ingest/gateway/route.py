"""From parsed reports to partitions: pseudonymise, sort, and notice versions not seen before.

The hot loop of the gateway: about a microsecond a report. The invariant: after it no report carries the device's own
name, each carries its tenant, and each lies in the partition of its pseudonym.
"""

from collections.abc import Sequence, Set
from typing import NamedTuple

from ingest.activity import ActivityBuffer
from ingest.events import CheckIn, Installed, Offered, Report
from ingest.gateway.pseudonym import Pseudonyms
from ingest.topics import partitions_of

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
    activity: Sequence[ActivityBuffer],
    crashes: Sequence[list[Report]],
) -> Routed:
    """Append each report to its partition's buffer.

    Args:
        reports: checked reports, changed in place: `device` becomes the pseudonym, `tenant` is filled in.
        tenant: the tenant of reports that name none.
        pseudonyms: the installation's.
        seen: (vendor, product, version) of rollouts known already.
        activity: a buffer for each partition, appended to.
        crashes: a list for each partition, for crash reports.
    """
    names = _rename(reports, tenant, pseudonyms)
    newcomers: list[Offered | Installed] = []
    crashed = 0
    for report, partition in zip(reports, partitions_of(names, len(activity)), strict=True):
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


def _rename(reports: Sequence[Report], tenant: str, pseudonyms: Pseudonyms) -> list[str]:
    """Give each report its pseudonym and its tenant, and return the pseudonyms."""
    names = []
    last = tenant
    known = pseudonyms.known(tenant)
    for report in reports:
        named = report.tenant
        if not named:
            report.tenant = named = tenant
        if named != last:
            last = named
            known = pseudonyms.known(named)
        name = known.get(report.device)
        if name is None:
            name = pseudonyms.of(named, report.device)
            known = pseudonyms.known(named)
        report.device = name
        names.append(name)
    return names
