"""What an observer sees of one recorded rollout, minute by minute: what peers work on."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from deploy.backtest.store import Recording
from detectors.backtest.trace import Minute

MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class _Seen:
    """Crash reports that arrived in one minute, by arm: control, exposed."""

    reports: list[int] = field(default_factory=lambda: [0, 0])
    users: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    signatures: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    models: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))


def observed(recording: Recording) -> list[Minute]:
    """Return the minutes from the rollout's beginning on.

    How many devices are heard from in a minute is its check-ins over all devices known, the same in both arms: the
    store has check-ins by minute only.
    """
    begin = recording.rollout.origin_ms // MINUTE_MS
    count = max(0, -(-recording.last_ms // MINUTE_MS) - begin)
    moves = _moves(recording, begin)
    crashes = _crashes(recording, begin)
    models: dict[str, list[int]] = {}
    totals, minutes = [0, 0], []
    for number in range(count):
        moved = moves.get(number, ())
        if moved:
            models = {name: list(both) for name, both in models.items()}
        for model, arm, by in moved:
            models.setdefault(model, [0, 0])[arm] += by
            totals[arm] += by
        share = min(1.0, recording.check_ins.get((begin + number) * MINUTE_MS, 0) / max(1, recording.fleet))
        minutes.append(_minute((begin + number + 1) * MINUTE_MS, totals, share, crashes.get(number, _NONE), models))
    return minutes


_NONE: Final = _Seen()
_NEVER: Final = (1 << 62, 1 << 62)


def _minute(at_ms: int, totals: list[int], share: float, seen: _Seen, models: dict[str, list[int]]) -> Minute:
    active = [max(round(total * share), len(users)) for total, users in zip(totals, seen.users, strict=True)]
    by_model = {
        name: (both[1], both[0], *reversed(seen.models.get(name, (0, 0))))
        for name, both in ({name: [0, 0] for name in seen.models} | models).items()
    }
    return Minute(
        at_ms=at_ms,
        exposed=totals[1],
        control=totals[0],
        active_exposed=active[1],
        active_control=active[0],
        crashes_exposed=seen.reports[1],
        crashes_control=seen.reports[0],
        users_exposed=len(seen.users[1]),
        users_control=len(seen.users[0]),
        signatures={name: (both[1], both[0]) for name, both in seen.signatures.items()},
        models={name: (on, off, crashed, other) for name, (on, off, crashed, other) in by_model.items()},
    )


def _moves(recording: Recording, begin: int) -> dict[int, list[tuple[str, int, int]]]:
    """Return by minute which model gains or loses how many devices in which arm."""
    moves: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    models = {crash.device: crash.model for crash in recording.crashes} | {
        one.device: one.model for one in recording.devices
    }
    exposures, controls = recording.exposures(), set()
    for one in recording.devices:
        if one.other_ms and one.other_ms < exposures.get(one.device, _NEVER)[0]:
            controls.add(one.device)
            moves[max(0, one.other_ms // MINUTE_MS - begin)].append((one.model, 0, 1))
    for device, (_, known_ms) in exposures.items():
        model, minute = models[device], max(0, known_ms // MINUTE_MS - begin)
        moves[minute] += [(model, 1, 1), *([(model, 0, -1)] if device in controls else [])]
    return moves


def _crashes(recording: Recording, begin: int) -> dict[int, _Seen]:
    exposures = recording.exposures()
    found: dict[int, _Seen] = defaultdict(_Seen)
    for crash in recording.crashes:
        seen, arm = (
            found[crash.received_ms // MINUTE_MS - begin],
            int(exposures.get(crash.device, _NEVER)[0] <= crash.at_ms),
        )
        seen.reports[arm] += 1
        seen.users[arm].add(crash.device)
        seen.signatures[crash.signature][arm] += 1
        seen.models[crash.model][arm] += 1
    return found
