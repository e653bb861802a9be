"""What an observer of a whole fleet sees of one update, minute by minute: by hand or drawn from a seed."""

from collections.abc import Callable, Sequence

import numpy as np

from detectors.backtest.trace import Minute

MINUTE_MS = 60_000
BEGAN_MS = 1_721_361_600_000  # 2024-07-19T04:00:00Z, no full day
DEVICES = 20_000
BACKGROUND = 0.005 / 1440
SIGNATURES = {"ntfs.sys": 0.5, "nvlddmkm.sys": 0.3, "win32k.sys": 0.2}
MODELS = {"Latitude 5440": 0.7, "ThinkPad T14": 0.3}


def minute(
    index: int,
    *,
    exposed: int = 1000,
    control: int = 9000,
    active: tuple[int, int] = (200, 1800),
    crashes: tuple[int, int] = (0, 0),
    users: tuple[int, int] | None = None,
    signatures: dict[str, tuple[int, int]] | None = None,
    models: dict[str, tuple[int, int, int, int]] | None = None,
) -> Minute:
    """Return minute `index` after the beginning; users are as many as crashes unless told."""
    users_exposed, users_control = crashes if users is None else users
    return Minute(
        at_ms=BEGAN_MS + (index + 1) * MINUTE_MS,
        exposed=exposed,
        control=control,
        active_exposed=active[0],
        active_control=active[1],
        crashes_exposed=crashes[0],
        crashes_control=crashes[1],
        users_exposed=users_exposed,
        users_control=users_control,
        signatures=signatures or {},
        models=models or {},
    )


def staged(index: int) -> float:
    """Return the exposed share of three rings: 1 % in the first ten minutes, 10 % from 4 h, half from 12 h on."""
    ends = ((0, 10, 0.01), (240, 270, 0.10), (720, 790, 0.50))
    share = 0.0
    for start, end, reach in ends:
        done = min(max((index + 1 - start) / (end - start), 0.0), 1.0)
        share += (reach - share) * done
    return share


def drawn(
    seed: int,
    *,
    count: int = 1500,
    ratio: Callable[[int], float] = lambda index: 1.0,
    share: Callable[[int], float] = staged,
    devices: int = DEVICES,
    background: float = BACKGROUND,
) -> list[Minute]:
    """Return minutes in which devices crash by chance, the exposed ones `ratio(index)` times as often.

    What goes beyond the background is of a signature of its own, `bad.sys`. A fifth of the devices is heard from in a
    minute, by day and by night.
    """
    rng = np.random.default_rng(seed)
    minutes = []
    for index in range(count):
        exposed = round(devices * share(index))
        control = devices - exposed
        signatures = {}
        for name, weight in SIGNATURES.items():
            pair = (int(rng.poisson(background * weight * exposed)), int(rng.poisson(background * weight * control)))
            if any(pair):
                signatures[name] = pair
        harm = min(int(rng.poisson(background * max(ratio(index) - 1, 0.0) * exposed)), exposed)
        if harm:
            signatures["bad.sys"] = (harm, 0)
        crashes = (sum(pair[0] for pair in signatures.values()), sum(pair[1] for pair in signatures.values()))
        active = (max(exposed // 5, crashes[0]), max(control // 5, crashes[1]))
        minutes.append(
            minute(
                index,
                exposed=exposed,
                control=control,
                active=active,
                crashes=crashes,
                signatures=signatures,
                models=_by_model(rng, exposed, control, crashes),
            )
        )
    return minutes


def _by_model(
    rng: np.random.Generator, exposed: int, control: int, crashes: tuple[int, int]
) -> dict[str, tuple[int, int, int, int]]:
    weights = list(MODELS.values())
    split = [rng.multinomial(count, weights).tolist() for count in crashes]
    return {
        name: (round(exposed * weight), round(control * weight), split[0][at], split[1][at])
        for at, (name, weight) in enumerate(MODELS.items())
    }


def indices(minutes: Sequence[Minute], times: Sequence[int]) -> list[int]:
    """Return which minutes ended at these times."""
    at = {one.at_ms: index for index, one in enumerate(minutes)}
    return [at[time] for time in times]
