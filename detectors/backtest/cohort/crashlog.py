"""First crashes of all rollouts in the order in which grouping admits them, as rows of the wire."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.backtest.cohort.cells import RolloutCells
from detectors.backtest.cohort.kinds import Kinds
from detectors.backtest.cohort.people import People
from detectors.backtest.cohort.timeline import FirstCrashes, Timeline
from detectors.backtest.draws import Ints
from ingest.grouping.crashes import SITE_SECONDS
from ingest.windows import BootBand, FirstCrash, Recency

# Where grouping counts crashes of devices that it never heard of.
NEVER_HEARD: Final = f"*|*|*|{BootBand.OLD}|{Recency.STALE}"


@dataclass(frozen=True, slots=True)
class Row:
    """A first crash before it is known whether it is scored."""

    arrives_ms: int
    device: int
    partition: int
    rollout: int
    site: int
    crash: FirstCrash


class CrashLog:
    """Gathers the first crashes of a trace, chunk by chunk.

    Attributes:
        looping: by crash of the chunk that is added, whether it is told as a boot loop.
    """

    def __init__(self, people: People, kinds: Kinds) -> None:
        self._people, self._kinds = people, kinds
        self._rows: list[Row] = []

    def add(self, rollout: int, cells: RolloutCells, firsts: FirstCrashes, line: Timeline) -> None:
        """Add a chunk's first crashes of one rollout."""
        facts, people = line.facts, self._people
        chunk, crashes = facts.chunk, facts.crashes
        sites = chunk.tenant * 10_000_000 + chunk.site
        for place, (number, device) in enumerate(zip(firsts.crash.tolist(), firsts.device.tolist(), strict=True)):
            known = bool(firsts.known[place])
            static = int(chunk.static[device])
            state, split = int(firsts.state[place]), int(firsts.split[place])
            crash = FirstCrash(
                at_ms=int(firsts.at_ms[place]),
                cell=cells.cell(static, state, split) if known else NEVER_HEARD,
                group=int(people.statics[static][1]),
                exposed=int(firsts.exposed[place]),
                tenant=people.tenant_numbers[int(chunk.tenant[device])],
                signature=self._kinds.signatures[int(crashes.kind[number])],
                scored=known,
                kind="boot_loop" if crashes.loop[number] else "bsod",
                build=people.builds[int(chunk.build[device])],
                model=people.models[int(chunk.model[device])],
                frames=self._kinds.frames[int(crashes.kind[number])],
            )
            self._rows.append(
                Row(
                    int(firsts.arrives_ms[place]),
                    chunk.first + device,
                    int(chunk.partition[device]),
                    rollout,
                    int(sites[device]),
                    crash,
                )
            )

    def admitted(self, times_ms: Ints) -> dict[tuple[int, int], dict[int, list[FirstCrash]]]:
        """Return the crashes by step and partition, then by rollout, each list in order of arrival.

        Of the devices of one site, of which a partition holds some, one crash in five minutes is scored.
        """
        self._rows.sort(key=lambda row: (row.arrives_ms, row.device, row.rollout))
        steps = np.searchsorted(times_ms, [row.arrives_ms for row in self._rows], side="right").tolist()
        last: dict[tuple[int, int], int] = {}
        judged: dict[tuple[int, int], bool] = {}
        found: dict[tuple[int, int], dict[int, list[FirstCrash]]] = {}
        for step, row in zip(steps, self._rows, strict=True):
            once = (row.device, row.arrives_ms)
            if once not in judged:
                judged[once] = row.crash.scored and self._scored(last, row)
            crash = row.crash
            if not judged[once]:
                crash = FirstCrash(
                    crash.at_ms, crash.cell, crash.group, crash.exposed, crash.tenant, crash.signature, False,
                    crash.kind, crash.build, crash.model, crash.frames,
                )  # fmt: skip
            found.setdefault((step, row.partition), {}).setdefault(row.rollout, []).append(crash)
        return found

    @staticmethod
    def _scored(last: dict[tuple[int, int], int], row: Row) -> bool:
        site, at_s = (row.partition, row.site), row.crash.at_ms // 1000
        before = last.get(site)
        if before is not None and abs(at_s - before) < SITE_SECONDS:
            return False
        last[site] = at_s
        return True
