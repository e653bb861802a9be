"""Make a trace of what a store has of some rollouts: steps for Cordon's detection, minutes for its peers, and no truth.

The store keeps no check-ins by device, so who is at risk is what `offered` and `installed` reports say: a device has
the version that it last told of, and is at risk until its first crash. README.md says what that leaves out. The
invariant: a device that is not known to have the product is no control: it costs evidence, and forges none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from deploy.backtest.observed import observed
from deploy.backtest.store import Crash, Device, Recording
from detectors.backtest.trace import Trace, UpdateTruth
from ingest.rollouts import Bound, Rollout
from ingest.tenancy import tenant_group, tenant_hash
from ingest.windows import AtRisk, BootBand, CohortWindow, FirstCrash, MarginRisk, Recency, Step

MINUTE_MS: Final = 60_000
TICK_MS: Final = 250
# While the update arrives on devices, a step ends so often.
_MOVES_MS: Final = 10_000
_FULL_MS: Final = 600_000
# Grouping scores one crash a site in so long.
_SITE_MS: Final = 300_000
# As many builds and models as grouping keeps apart.
_NAMES_MAX: Final = 64
# With cells split by two rivals they stay below what detection compares.
_CELLS_MAX: Final = 60
RIVALS_MAX: Final = 2
OTHER: Final = "other"
_NEVER: Final = (1 << 62, 1 << 62)

Exposures = Mapping[str, tuple[int, int]]


def trace_of(recordings: Sequence[Recording], reaction_ms: int = 10_000) -> Trace:
    """Return the trace of recorded rollouts, all of them together; its truths say only who took which update when."""
    return Trace(
        name="recorded",
        seed=0,
        partitions=1,
        feed=feed(recordings),
        minutes={one.rollout.rollout: observed(one) for one in recordings},
        truths=[_truth(one) for one in recordings],
        reaction_ms=reaction_ms,
    )


def _truth(recording: Recording) -> UpdateTruth:
    rollout = recording.rollout
    took = np.sort(np.array([since for since, _ in recording.exposures().values()], dtype=np.int64))
    return UpdateTruth(
        rollout=rollout.rollout,
        vendor=rollout.vendor,
        product=rollout.product,
        version=rollout.version,
        guilty=False,
        began_ms=rollout.origin_ms,
        broad_ms=max([rollout.origin_ms, *(ring.starts_at_ms or 0 for ring in rollout.rings)]),
        took_ms=took,
        harmed=np.zeros(len(took), dtype=np.bool_),
        first_harm_ms=None,
    )


def bounded(recording: Recording) -> Rollout:
    """Return the rollout, still open, with a bound that what is recorded can bear.

    The lists of a declaration are not in the store: where it has nothing else, `offered` reports bound who is exposed,
    and without those nothing does.
    """
    rollout = msgspec.structs.replace(recording.rollout, closed=False)
    if rollout.bound is Bound.DECLARED and not rollout.rings:
        told = Bound.OFFERED if recording.offers else Bound.NONE
        return msgspec.structs.replace(rollout, bound=told, pushed_devices=0, pushed_lists=[])
    return rollout


@dataclass(slots=True)
class _Names:
    """The builds, models and circumstances that are kept apart; the others are one."""

    builds: set[str]
    models: set[str]
    circumstances: set[tuple[str, str, str]]

    @classmethod
    def of(cls, devices: Sequence[Device]) -> "_Names":
        """Keep the most frequent ones: by devices alone, never by crashes."""
        builds = Counter(one.os_build for one in devices).most_common(_NAMES_MAX)
        models = Counter(one.model for one in devices).most_common(_NAMES_MAX)
        cells = Counter(_circumstances(one) for one in devices).most_common(_CELLS_MAX)
        return cls(
            {text for text, _ in builds if text}, {text for text, _ in models if text}, {one for one, _ in cells}
        )

    def named(self, device: Device | Crash) -> tuple[str, str]:
        """Return the build and model as margins name them."""
        return (
            device.os_build if device.os_build in self.builds else OTHER,
            device.model if device.model in self.models else OTHER,
        )

    def cell(self, device: Device | Crash, rivals: Iterable[str]) -> str:
        """Return the cell's text."""
        found = _circumstances(device)
        base = found if found in self.circumstances else ("*", "*", "*")
        # The store does not say how long a device has been up, nor when it was last heard from: one band for all.
        split = "+".join(sorted(rivals))
        return "|".join((*base, BootBand.DAY, Recency.RECENT, *([split] if split else [])))


def _circumstances(device: Device | Crash) -> tuple[str, str, str]:
    return (device.os_build.split(".")[0], device.form_factor, device.ring)


@dataclass(slots=True)
class _Counts:
    """Devices at risk by place, exposed and control, and which places changed since they were last said."""

    at_risk: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    margins: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    changed: set[tuple[str, int]] = field(default_factory=set)

    def add(self, cell: str, margins: tuple[str, str], group: int, exposed: bool, by: int) -> None:
        """Count `by` more devices in a cell and its margins."""
        arm = 0 if exposed else 1
        self.at_risk[cell, group][arm] += by
        self.changed.add((cell, group))
        for name, text in zip(("build", "model"), margins, strict=True):
            self.margins[f"{name}={text}", group][arm] += by


class _Voice:
    """What one rollout's windows say.

    Args:
        recording: the rollout.
        rivals: rollout to exposures, of those by which its cells are split.
    """

    def __init__(self, recording: Recording, rivals: Mapping[str, Exposures]) -> None:
        self._recording, self._rivals = recording, rivals
        self.rollout = bounded(recording)
        self._names = _Names.of(recording.devices)
        self._devices = {one.device: one for one in recording.devices}
        self._exposures = recording.exposures()
        self._state: dict[str, tuple[bool, frozenset[str]]] = {}
        self._on: dict[str, frozenset[str]] = {}
        self._counts = _Counts()
        self._crashed: set[str] = set()
        self._site_ms: dict[tuple[str, str], int] = {}
        self._exposed: set[str] = set()
        self._moves = sorted(self._changes())
        self._crashes = sorted(recording.crashes, key=lambda one: (one.received_ms, one.device, one.at_ms))
        self._move = self._crash = self._full_ms = 0

    def watermarks(self) -> Iterator[int]:
        """Yield when its steps end: at each minute, at crashes, and often while the update arrives on devices."""
        recording = self._recording
        begin = self.rollout.origin_ms // MINUTE_MS * MINUTE_MS
        end = -(-recording.last_ms // MINUTE_MS) * MINUTE_MS
        yield from range(begin, end + 1, MINUTE_MS)
        yield from ((one.received_ms // TICK_MS + 1) * TICK_MS for one in recording.crashes if one.received_ms < end)
        moves = {(known // _MOVES_MS + 1) * _MOVES_MS for _, known in self._exposures.values()}
        yield from (move for move in moves if begin <= move <= end)

    def window(self, watermark: int) -> CohortWindow | None:
        """Return what it says of the step that ends at `watermark`; None where nothing changed."""
        while self._move < len(self._moves) and self._moves[self._move][0] < watermark:
            self._take(*self._moves[self._move][1:])
            self._move += 1
        crashes: list[FirstCrash] = []
        while self._crash < len(self._crashes) and self._crashes[self._crash].received_ms < watermark:
            crashes += self._admit(self._crashes[self._crash])
            self._crash += 1
        full = watermark - self._full_ms >= _FULL_MS
        self._full_ms = watermark if full else self._full_ms
        counts, rollout = self._counts, self.rollout
        places = sorted(counts.at_risk if full else counts.changed)
        counts.changed.clear()
        if not (places or crashes or full):
            return None
        return CohortWindow(
            rollout=rollout.rollout,
            vendor=rollout.vendor,
            product=rollout.product,
            version=rollout.version,
            origin_ms=rollout.origin_ms,
            full=full,
            at_risk=[AtRisk(*place, *counts.at_risk[place]) for place in places],
            crashes=crashes,
            crash_total=len(self._crashed),
            exposed_total=len(self._exposed),
            margins=[MarginRisk(*place, *both) for place, both in sorted(counts.margins.items())] if full else [],
        )

    def _changes(self) -> Iterator[tuple[int, str, str]]:
        """Yield when a device becomes control (no name), exposed, or exposed to a rival, as reports arrived."""
        for one in self._recording.devices:
            if one.other_ms and one.other_ms < self._exposures.get(one.device, _NEVER)[0]:
                yield one.other_ms, one.device, ""
        for device, (_, known) in self._exposures.items():
            yield known, device, self.rollout.rollout
        for rival, exposures in self._rivals.items():
            yield from ((known, device, rival) for device, (_, known) in exposures.items() if device in self._devices)

    def _take(self, device: str, what: str) -> None:
        if what == self.rollout.rollout:
            self._exposed.add(device)
        elif what:
            self._on[device] = self._on.get(device, frozenset()) | {what}
        before = self._state.get(device)
        if device in self._crashed or device not in self._devices or (before is None and what in self._rivals):
            return
        exposed = device in self._exposed
        self._count(device, before, -1)
        self._state[device] = now = (exposed, self._on.get(device, frozenset()))
        self._count(device, now, 1)

    def _count(self, device: str, state: tuple[bool, frozenset[str]] | None, by: int) -> None:
        if state is not None:
            one = self._devices[device]
            cell, margins = self._names.cell(one, state[1]), self._names.named(one)
            self._counts.add(cell, margins, tenant_group(one.tenant), state[0], by)

    def _admit(self, crash: Crash) -> list[FirstCrash]:
        """Return the crash if it is its device's first; the device is at risk no more."""
        if crash.device in self._crashed:
            return []
        exposed = self._exposures.get(crash.device, _NEVER)[0] <= crash.at_ms
        if exposed:
            self._exposed.add(crash.device)
        self._crashed.add(crash.device)
        self._count(crash.device, self._state.pop(crash.device, None), -1)
        told = self._devices.get(crash.device, crash)
        on = [rival for rival, found in self._rivals.items() if found.get(crash.device, _NEVER)[0] <= crash.at_ms]
        build, model = self._names.named(told)
        return [
            FirstCrash(
                at_ms=min(crash.at_ms, crash.received_ms),
                cell=self._names.cell(told, on),
                group=tenant_group(told.tenant),
                exposed=int(exposed),
                tenant=tenant_hash(told.tenant),
                signature=crash.signature,
                scored=self._alone(crash),
                kind=crash.kind,
                build=build,
                model=model,
            )
        ]

    def _alone(self, crash: Crash) -> bool:
        """Tell whether no crash of the same site came within five minutes before."""
        if not crash.site:
            return True
        before = self._site_ms.get((crash.tenant, crash.site))
        self._site_ms[crash.tenant, crash.site] = crash.at_ms
        return before is None or abs(crash.at_ms - before) >= _SITE_MS


def rivals_of(recordings: Sequence[Recording]) -> list[list[int]]:
    """Return for each rollout the numbers of those that share most devices with it, of other products, two at most."""
    exposures = [recording.exposures().keys() for recording in recordings]
    found = []
    for number, one in enumerate(recordings):
        shared = [
            (len(exposures[number] & exposures[other]), other)
            for other, two in enumerate(recordings)
            if (two.rollout.vendor, two.rollout.product) != (one.rollout.vendor, one.rollout.product)
            and two.rollout.origin_ms < one.last_ms
            and one.rollout.origin_ms < two.last_ms
        ]
        found.append([other for count, other in sorted(shared, reverse=True)[:RIVALS_MAX] if count])
    return found


def feed(recordings: Sequence[Recording]) -> Iterator[Rollout | Step]:
    """Yield the rollouts and the steps of one partition, in the order of the log."""
    exposures = {one.rollout.rollout: one.exposures() for one in recordings}
    names = [one.rollout.rollout for one in recordings]
    voices = [
        (_Voice(one, {names[rival]: exposures[names[rival]] for rival in rivals}), one.last_ms)
        for one, rivals in zip(recordings, rivals_of(recordings), strict=True)
    ]
    told: set[str] = set()
    closed: set[str] = set()
    since = 0
    for watermark in sorted({time for voice, _ in voices for time in voice.watermarks()}):
        windows = []
        for voice, last_ms in voices:
            rollout = voice.rollout
            if watermark < rollout.origin_ms // MINUTE_MS * MINUTE_MS or rollout.rollout in closed:
                continue
            if rollout.rollout not in told:
                told.add(rollout.rollout)
                yield rollout
            if watermark > last_ms + MINUTE_MS:
                closed.add(rollout.rollout)
                yield msgspec.structs.replace(rollout, closed=True)
                continue
            window = voice.window(watermark)
            if window is not None:
                windows.append(window)
        yield Step(
            partition=0,
            generation=1,
            offsets={},
            since_ms=since,
            watermark_ms=watermark,
            crash_watermark_ms=watermark,
            windows=windows,
        )
        since = watermark
