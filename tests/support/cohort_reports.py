"""The reports that a cohort-level simulation leaves out, and what real grouping makes of them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detectors.backtest.cohort.declaring import Watched
from detectors.backtest.cohort.facts import Facts
from detectors.backtest.cohort.people import People
from detectors.backtest.cohort.uptime import NEVER, next_check_in
from detectors.backtest.scenario import Scenario
from ingest.activity import pack
from ingest.events import Batch, BootLoop, Bsod, CheckIn, DiskVersion, Installed, Offered, RolloutNotice, Tick, encoder
from ingest.grouping.partition import Bounds, Partition
from ingest.log.interface import Record
from ingest.windows import Step

GATEWAY = "gateway-1"


class Sent(NamedTuple):
    """A report on its way: made and arriving at these times."""

    made_ms: int
    arrives_ms: int
    device: int
    crash: bool
    fields: dict[str, Any]


def pseudonym(device: int, partition: int) -> str:
    """Return a pseudonym that lies in the given partition."""
    return f"{partition:08x}{device + 1:08x}"


class Reports:
    """Writes down all reports of a fleet of one chunk, as its devices would post them."""

    def __init__(self, scenario: Scenario, people: People, facts: Facts) -> None:
        self.scenario, self.people, self.facts = scenario, people, facts
        self.sent = sorted(self._all(), key=lambda one: (one.made_ms, one.device))

    def _all(self) -> Iterator[Sent]:
        facts, chunk = self.facts, self.facts.chunk
        spans = facts.spans
        begins = np.searchsorted(spans.device, np.arange(chunk.devices + 1)).tolist()
        for device in np.flatnonzero(~chunk.unheard).tolist():
            for place in range(begins[device], begins[device + 1]):
                start, end = int(spans.start_ms[place]), int(spans.end_ms[place])
                first = int(next_check_in(chunk.phase_ms[[device]], chunk.every_ms, spans.start_ms[[place]])[0])
                for at_ms in range(first, end, chunk.every_ms):
                    fields = {"boot_at_ms": int(spans.boot_ms[place]), "versions": self._listed(device, at_ms)}
                    yield Sent(at_ms, at_ms, device, False, {"make": CheckIn, **fields})
                assert start < end
        yield from self._updates()
        crashes = facts.crashes
        for place in np.flatnonzero(facts.arrives_ms < NEVER).tolist():
            device, at_ms = int(crashes.device[place]), int(crashes.at_ms[place])
            disk = [
                DiskVersion(vendor=one.partition("/")[0], product=one.partition("/")[2], version=version)
                for one, version in self._listed(device, at_ms).items()
            ]
            loop = bool(crashes.loop[place])
            fields = {"at_ms": at_ms, "boot_at_ms": int(facts.boot_ms[place]), "versions": disk}
            made = min(int(facts.arrives_ms[place]), max(at_ms, int(crashes.up_ms[place])))
            kind = {"make": BootLoop if loop else Bsod, "bugcheck": 1000 + int(crashes.kind[place])}
            yield Sent(made, int(facts.arrives_ms[place]), device, True, {**kind, **fields})

    def _listed(self, device: int, at_ms: int) -> dict[str, str]:
        """Return the versions on a device's disk."""
        listed = {}
        for number, product in enumerate(self.scenario.products):
            found = int(self.facts.chunk.versions[number][device])
            if found >= 0:
                listed[f"{product.vendor}/{product.product}"] = product.versions[found].name
        for number, plan in enumerate(self.scenario.updates):
            if self.facts.taken[number].loads_ms[device] <= at_ms:
                listed[f"{plan.vendor}/{plan.product}"] = plan.version
        return listed

    def _updates(self) -> Iterator[Sent]:
        facts, spans = self.facts, self.facts.spans
        pairs = iter(facts.said)
        for plan in self.scenario.updates:
            kind = next(p.kind for p in self.scenario.products if (p.vendor, p.product) == (plan.vendor, plan.product))
            named = {"vendor": plan.vendor, "product": plan.product, "update_kind": kind, "version": plan.version}
            for make in (Offered, Installed) if plan.says_offered else (Installed,):
                said = next(pairs)
                for device, at_ms, arrives_ms in zip(*(column.tolist() for column in said), strict=True):
                    mine = np.flatnonzero((spans.device == device) & (spans.start_ms <= at_ms))
                    boot = int(spans.boot_ms[mine[-1]]) if len(mine) else at_ms
                    yield Sent(at_ms, arrives_ms, device, False, {"make": make, "boot_at_ms": boot, **named})

    def report(self, sent: Sent, seq: int) -> Any:
        """Return a report as the gateway writes it."""
        people, chunk, device = self.people, self.facts.chunk, sent.device
        fleet = self.scenario.fleet
        fields = dict(sent.fields)
        make = fields.pop("make")
        at_ms = fields.pop("at_ms", sent.made_ms) + int(chunk.skew_ms[device])
        boot = min(fields.pop("boot_at_ms") + int(chunk.skew_ms[device]), at_ms, sent.arrives_ms)
        if sent.crash:
            fields["module"] = f"module-{fields['bugcheck']}.sys"
        tenant = fleet.tenants[int(chunk.tenant[device])].name
        return make(
            device=pseudonym(device, int(chunk.partition[device])),
            seq=seq,
            at_ms=at_ms,
            boot_id=f"b{boot}",
            boot_at_ms=boot,
            os_build=people.builds[int(chunk.build[device])],
            form_factor=fleet.form_factors[int(chunk.form[device])].name,
            model=people.models[int(chunk.model[device])],
            ring=fleet.rings[int(chunk.ring[device])].name,
            tenant=tenant,
            site=f"{tenant}-{int(chunk.site[device])}",
            **fields,
        )


def through_grouping(reports: Reports, watched: list[Watched], times_ms: list[int], partitions: int) -> list[Step]:
    """Return the steps that real grouping says of the reports, with ticks at the given times."""
    parts = [Partition(Bounds(number, partitions, 10_000, 900), _refuse) for number in range(partitions)]
    numbers: dict[int, int] = defaultdict(lambda: 1000)
    made = []
    for one in reports.sent:
        numbers[one.device] += 1
        made.append((one, numbers[one.device]))
    made.sort(key=lambda pair: (pair[0].arrives_ms, pair[0].device, pair[1]))
    offsets: dict[tuple[int, str], int] = defaultdict(int)
    steps: list[Step] = []
    told, place = set(), 0

    def put(partition: int, word: str, value: bytes) -> None:
        record = Record(offsets[partition, word], None, value, 0)
        offsets[partition, word] += 1
        (parts[partition].read_activity if word == "activity" else parts[partition].read_crashes)(record)

    for watermark in times_ms:
        for number, rollout in enumerate(watched):
            if number not in told and rollout.said_ms < watermark:
                told.add(number)
                for partition in range(partitions):
                    put(partition, "activity", encoder.encode(_notice(rollout)))
        activity: dict[int, list[Any]] = defaultdict(list)
        while place < len(made) and made[place][0].arrives_ms < watermark:
            sent, seq = made[place]
            place += 1
            report = reports.report(sent, seq)
            partition = int(reports.facts.chunk.partition[sent.device])
            if sent.crash:
                batch = Batch(gateway=GATEWAY, received_at_ms=sent.arrives_ms, reports=[report])
                put(partition, "crashes", encoder.encode(batch))
            else:
                activity[partition].append(report)
        for partition, some in activity.items():
            put(partition, "activity", encoder.encode(pack(some, GATEWAY, watermark - 1)))
        for partition, part in enumerate(parts):
            for word in ("activity", "crashes"):
                put(partition, word, encoder.encode(Tick(gateway=GATEWAY, at_ms=watermark)))
            steps += part.advance()
    return steps


def _notice(watched: Watched) -> RolloutNotice:
    record = watched.record
    return RolloutNotice(
        rollout=record.rollout,
        vendor=record.vendor,
        product=record.product,
        version=record.version,
        origin_ms=record.origin_ms,
        declared=True if record.declared_by else msgspec.UNSET,
    )


def _refuse(word: str, record: Record, reason: object, detail: str) -> None:
    raise AssertionError(f"{word}: {reason}: {detail}")
