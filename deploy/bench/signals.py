"""`make bench-signals`: from a decision to those who asked to hear of it, by stream and by webhook, against the bounds.

Name parts to run only those: `python -m deploy.bench.signals --only webhooks`. In each part a `cordon up` runs in a
process of its own and all subscribers in another; the clock runs from `decided_ms` in the signed event to its arrival.
"""

import importlib
import sys

from deploy.bench.figures import Figure
from deploy.bench.parts import run_parts

PARTS = {
    "stream": "deploy.bench.signals_stream",
    "webhooks": "deploy.bench.signals_webhooks",
}
PART_SECONDS_MAX = 1800


def _measure(part: str) -> list[Figure]:
    figures: list[Figure] = importlib.import_module(PARTS[part]).measure()
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Run the parts named, both if none is, and return the exit code: 1 when a bound falls short."""
    return run_parts("signals", PARTS, _measure, PART_SECONDS_MAX, arguments)


if __name__ == "__main__":
    sys.exit(main())
