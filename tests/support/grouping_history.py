"""A history of reports for grouping's fault tests, what a plain model says of it, and what a log's reader was told.

The history is the same for every log: `History.step` gives the entries of one turn of a gateway, and tells the model.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from ingest.events import RolloutNotice
from ingest.log.interface import Entry, Record
from ingest.minutes import minute_of, offset_seconds
from ingest.topics import Topics
from ingest.windows import step_decoder
from support.grouping_model import Model
from support.world import KEY, NEW, OLD, T0, World, pseudonym

SECOND = 1000
DEVICES = 120


class History:
    """Reports of some devices through a rollout: check-ins, offers, crashes, and each of them twice now and then."""

    def __init__(self, topics: Topics, seed: int = 719) -> None:
        self.model = Model()
        self.rollout = ""
        self.now_ms = T0
        self._world = World(topics)
        self._generator = random.Random(seed)
        self._turn = 0

    def step(self) -> list[Entry]:
        """Return the entries of the next turn."""
        turn, generator, world = self._turn, self._generator, self._world
        self._turn += 1
        self.now_ms += generator.choice([250, 1000, 9000])
        now = self.now_ms
        entries = self._notices() if turn == 20 else []
        activity: list[Any] = []
        for _ in range(6):
            device = generator.randrange(min(DEVICES, 5 + turn))
            if turn > 20 and generator.random() < 0.2:
                activity.append(world.offered(device, now))
            else:
                activity.append(world.check_in(device, now - 30 * SECOND, generator.choice([None, OLD])))
        activity += activity[:2]
        crashes: list[Any] = []
        if turn > 25 and generator.random() < 0.3:
            named = generator.choice([None, OLD, NEW])
            crashes = [world.bsod(generator.randrange(DEVICES + 40), now - 5 * SECOND, named)] * 2
        for word, reports in (("activity", activity), ("crashes", crashes)):
            entries += world.batches(word, reports, now) if reports else []
        for report in activity:
            self.model.activity(report, now)
        self.model.push(now)
        for crash in crashes:
            self.model.crash(crash, now, now)
        return [*entries, *world.ticks(now)]

    def _notices(self) -> list[Entry]:
        pushed, from_ms = range(DEVICES, DEVICES + 30), self.now_ms + 20 * SECOND
        entries = self._world.notices(T0, NEW, pushed, from_ms)
        self.rollout = msgspec.json.decode(entries[0].value or b"", type=RolloutNotice).rollout
        self.model.watch(self.rollout, KEY, NEW, T0)
        self.model.pushes.append((from_ms // 1000, KEY, NEW, [pseudonym(device) for device in pushed]))
        return entries

    def expected_at_risk(self) -> Counter[tuple[str, int, bool]]:
        """Return devices at risk by cell, group and arm, as the model counts them."""
        return Counter(self.model.at_risk(self.rollout, minute_of(self.now_ms // SECOND, offset_seconds(self.rollout))))

    def expected_crashes(self) -> Counter[tuple[str, int]]:
        """Return first crashes by arm and second, as the model counts them."""
        return Counter(self.model.watched[self.rollout].crashes)


class Told:
    """What a reader of the cohort topic knows: it goes by the newest generation, and takes a step once."""

    def __init__(self, rollout: str) -> None:
        self.crashes: Counter[tuple[str, int]] = Counter()
        self.generations: dict[int, set[int]] = {}
        self.stale = 0
        self._rollout = rollout
        self._held: dict[int, int] = {}
        self._at_risk: dict[tuple[int, str, int], tuple[int, int]] = {}

    def read(self, records: Iterable[Record]) -> None:
        """Take records of the cohort topic, in order."""
        for record in records:
            step = step_decoder.decode(record.value or b"")
            known = self.generations.setdefault(step.partition, set())
            if known and step.generation < max(known):
                self.stale += 1
                continue
            known.add(step.generation)
            if step.watermark_ms <= self._held.get(step.partition, 0):
                continue
            assert step.since_ms == self._held.get(step.partition, 0)
            self._held[step.partition] = step.watermark_ms
            for window in step.windows:
                assert window.rollout == self._rollout
                if window.full:
                    self._at_risk = {key: row for key, row in self._at_risk.items() if key[0] != step.partition}
                for row in window.at_risk:
                    self._at_risk[step.partition, row.cell, row.group] = (row.exposed, row.control)
                self.crashes.update(
                    ("exposed" if one.exposed else "control", one.at_ms // 1000) for one in window.crashes
                )

    @property
    def at_risk(self) -> Counter[tuple[str, int, bool]]:
        """Devices at risk by cell, group and arm."""
        sums: Counter[tuple[str, int, bool]] = Counter()
        for (_, cell, group), (exposed, control) in self._at_risk.items():
            sums[cell, group, True] += exposed
            sums[cell, group, False] += control
        return +sums
