"""`make bench-distributed`: the figures of Cordon on many machines, on a Kafka of its own on this one.

Name parts to run only those: `python -m deploy.bench.distributed --only grouping,recovery`. Each runs in a process of
its own, with a broker of its own.
"""

import importlib
import sys

from deploy.bench.figures import Figure
from deploy.bench.parts import run_parts
from deploy.kafka.broker import LocalKafka

PARTS = {
    "grouping": "deploy.bench.distributed_grouping",
    "recovery": "deploy.bench.distributed_recovery",
    "end_to_end": "deploy.bench.distributed_end_to_end",
}
# Workers that start within it are dealt their partitions together: no rebalance falls into what is measured.
BROKER = {"group.initial.rebalance.delay.ms": "3000"}
PART_SECONDS_MAX = 1200


def _measure(part: str) -> list[Figure]:
    with LocalKafka(properties=BROKER) as kafka:
        figures: list[Figure] = importlib.import_module(PARTS[part]).measure(kafka)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Run the parts named, all of them if none is, and return the exit code: 1 when a bound falls short."""
    return run_parts("distributed", PARTS, _measure, PART_SECONDS_MAX, arguments)


if __name__ == "__main__":
    sys.exit(main())
