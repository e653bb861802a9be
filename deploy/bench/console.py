"""`make bench-console`: how soon a page of the console is painted and renewed, and what a hundred viewers cost.

Name parts to run only those: `python -m deploy.bench.console --only viewers`. In each part a `cordon up` runs in a
process of its own, on a store and a log that were filled before.
"""

import importlib
import sys

from deploy.bench.figures import Figure
from deploy.bench.parts import run_parts

PARTS = {
    "pages": "deploy.bench.console_pages",
    "viewers": "deploy.bench.console_viewers",
}
PART_SECONDS_MAX = 1800


def _measure(part: str) -> list[Figure]:
    figures: list[Figure] = importlib.import_module(PARTS[part]).measure()
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Run the parts named, both if none is, and return the exit code: 1 when a bound falls short."""
    return run_parts("console", PARTS, _measure, PART_SECONDS_MAX, arguments)


if __name__ == "__main__":
    sys.exit(main())
