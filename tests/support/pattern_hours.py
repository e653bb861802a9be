"""Hours of a quiet fleet's crashes as the store tells of them, and storms to put into them."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from detectors.alerts.hours import SeenPattern
from detectors.clusters import SignatureText

BUILDS = ("22631.3880", "19045.4651")
MODELS = ("Latitude 5440", "ThinkPad T14", "")
FIRST_HOUR = 478_000


def quiet_hours(seed: int, hours: int, signatures: int = 25) -> Iterator[tuple[int, list[SeenPattern]]]:
    """Give hours with days and nights, busy and rare signatures, and hours that shake all of them."""
    draw = np.random.default_rng(seed)
    rates = np.exp(draw.normal(-3.2, 1.2, (signatures, len(BUILDS), len(MODELS))))
    for hour in range(hours):
        shaken = rates * (1 + 0.8 * math.sin(math.pi * hour / 12)) * draw.gamma(8, 1 / 8, rates.shape)
        rows = []
        for at, crashes in np.ndenumerate(draw.poisson(shaken)):
            if crashes:
                devices = int(draw.binomial(int(crashes) - 1, 0.8)) + 1
                tenants = tuple(f"t{number}" for number in range(min(devices, 2)))
                rows.append(
                    SeenPattern(f"s{at[0]}.sys|0x50", BUILDS[at[1]], MODELS[at[2]], int(crashes), devices, tenants, {})
                )
        yield FIRST_HOUR + hour, rows


def storm(
    devices: int, signature: str = "bad.sys|0x7e", rollouts: dict[str, int] | None = None, model: str = MODELS[0]
) -> SeenPattern:
    """Return the row of a storm on one build and model."""
    tenants = tuple(f"t{number}" for number in range(min(devices, 5)))
    return SeenPattern(signature, BUILDS[0], model, devices, devices, tenants, rollouts or {})


def texts(*names: str) -> Sequence[SignatureText]:
    """Return signatures of one driver whose stacks are alike but for their offsets."""
    return [
        SignatureText(
            name=name,
            module=name.partition("|")[0],
            bugcheck=name.partition("|")[2],
            frames=tuple(f"bad.sys+{0xE14ED + number * 16 + 4096 * at:#x}" for at in range(6)),
            devices=10 - number,
        )
        for number, name in enumerate(names)
    ]
