"""`make bench-detectors`: crashes to a kill, validity, cost and lies, each against its bound.

Name parts to run only those: `python -m deploy.bench.detectors --only crashes,stage`. Each runs in a process of its
own; the simulations in it may use two more.
"""

import argparse
import importlib
import json
import subprocess
import sys

import msgspec

from deploy.bench.figures import Figure, show

PARTS = {
    "crashes": "deploy.bench.detectors_crashes",
    "safeguards": "deploy.bench.detectors_safeguards",
    "validity": "deploy.bench.detectors_validity",
    "liar": "deploy.bench.detectors_liar",
    "gate": "deploy.bench.detectors_gate",
    "stage": "deploy.bench.detectors_stage",
}
PART_SECONDS_MAX = 3600


def _run(part: str) -> list[Figure]:
    command = [sys.executable, "-m", "deploy.bench.detectors", "--part", part]
    # The command is our own.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=PART_SECONDS_MAX)  # noqa: S603
    if done.returncode:
        return [Figure(figure=f"{part} failed, see above", value=float(done.returncode), unit="exit code", ok=False)]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Figure])


def main(arguments: list[str] | None = None) -> int:
    """Run the parts named, all of them if none is, and return the exit code: 1 when a bound falls short."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.detectors")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {', '.join(PARTS)}")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        print(json.dumps(msgspec.to_builtins(importlib.import_module(PARTS[given.part]).measure())))
        return 0
    chosen = [part for part in given.only.split(",") if part]
    unknown = set(chosen) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures = []
    for part in (part for part in PARTS if part in chosen):
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        figures.extend(_run(part))
    return 0 if show("detectors", figures) else 1


if __name__ == "__main__":
    sys.exit(main())
