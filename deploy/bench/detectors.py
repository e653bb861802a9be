"""`make bench-detectors`: crashes to a kill, validity, cost, lies and silence, each against its bound.

Name parts to run only those: `python -m deploy.bench.detectors --only crashes,stage`. Each runs in a process of its
own; the simulations in it may use two more.
"""

import importlib
import sys

from deploy.bench.figures import Figure
from deploy.bench.parts import run_parts

PARTS = {
    "crashes": "deploy.bench.detectors_crashes",
    "safeguards": "deploy.bench.detectors_safeguards",
    "validity": "deploy.bench.detectors_validity",
    "liar": "deploy.bench.detectors_liar",
    "gate": "deploy.bench.detectors_gate",
    "stage": "deploy.bench.detectors_stage",
    "heard": "deploy.bench.detectors_heard",
}
PART_SECONDS_MAX = 3600


def _measure(part: str) -> list[Figure]:
    figures: list[Figure] = importlib.import_module(PARTS[part]).measure()
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Run the parts named, all of them if none is, and return the exit code: 1 when a bound falls short."""
    return run_parts("detectors", PARTS, _measure, PART_SECONDS_MAX, arguments)


if __name__ == "__main__":
    sys.exit(main())
