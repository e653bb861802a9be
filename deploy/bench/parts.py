"""A bench made of parts, each measured in a process of its own: which are run, and what becomes of one that fails."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Collection

import msgspec

from deploy.bench.figures import Figure, show


def run_parts(
    name: str,
    parts: Collection[str],
    measure: Callable[[str], list[Figure]],
    seconds_max: float,
    arguments: list[str] | None = None,
) -> int:
    """Run the parts named in the arguments, all of them if none is; return the exit code: 1 when a bound falls short.

    Args:
        name: the module in `deploy.bench` that calls this, and the name of its JSON file.
        parts: the parts' names, in their order.
        measure: measures one part, in the process that was started for it.
        seconds_max: how long one part may take.
        arguments: of the command line; those of the process if left out.
    """
    module = f"deploy.bench.{name}"
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--only", default=",".join(parts), help=f"parts, with commas between: {', '.join(parts)}")
    parser.add_argument("--part", choices=list(parts), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        # The last line of its output is read by the process that started it.
        print(json.dumps(msgspec.to_builtins(measure(given.part))))
        return 0
    chosen = [part for part in given.only.split(",") if part]
    unknown = set(chosen) - set(parts)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    figures = []
    for part in (part for part in parts if part in chosen):
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        figures.extend(_run(module, part, seconds_max))
    return 0 if show(name, figures) else 1


def _run(module: str, part: str, seconds_max: float) -> list[Figure]:
    command = [sys.executable, "-m", module, "--part", part]
    # The command is our own.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=seconds_max)  # noqa: S603
    if done.returncode:
        return [Figure(figure=f"{part} failed, see above", value=float(done.returncode), unit="exit code", ok=False)]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Figure])
