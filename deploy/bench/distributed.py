"""`make bench-distributed`: the figures of Cordon on many machines, on a Kafka of its own on this one.

Name parts to run only those: `python -m deploy.bench.distributed --only grouping,recovery`. Each runs in a process of
its own, with a broker of its own.
"""

import argparse
import importlib
import json
import subprocess
import sys

import msgspec

from deploy.bench.figures import Figure, show
from deploy.kafka.broker import LocalKafka

PARTS = {
    "grouping": "deploy.bench.distributed_grouping",
    "recovery": "deploy.bench.distributed_recovery",
    "end_to_end": "deploy.bench.distributed_end_to_end",
}
# Workers that start within it are dealt their partitions together: no rebalance falls into what is measured.
BROKER = {"group.initial.rebalance.delay.ms": "3000"}
PART_SECONDS_MAX = 1200


def _run(part: str) -> list[Figure]:
    command = [sys.executable, "-m", "deploy.bench.distributed", "--part", part]
    # The command is our own.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=PART_SECONDS_MAX)  # noqa: S603
    if done.returncode:
        return [Figure(figure=f"{part} failed, see above", value=float(done.returncode), unit="exit code", ok=False)]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Figure])


def _part(part: str) -> None:
    """Measure one part in this process, and print its figures as the last line."""
    with LocalKafka(properties=BROKER) as kafka:
        figures = importlib.import_module(PARTS[part]).measure(kafka)
    print(json.dumps(msgspec.to_builtins(figures)))


def main(arguments: list[str] | None = None) -> int:
    """Run the parts named, all of them if none is, and return the exit code: 1 when a bound falls short."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.distributed")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {', '.join(PARTS)}")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        _part(given.part)
        return 0
    chosen = [part for part in given.only.split(",") if part]
    unknown = set(chosen) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures = []
    for part in (part for part in PARTS if part in chosen):
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        figures.extend(_run(part))
    return 0 if show("distributed", figures) else 1


if __name__ == "__main__":
    sys.exit(main())
