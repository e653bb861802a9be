"""`make bench`: the figures of the embedded Cordon.

Each group runs in a process of its own, one after the other, so that none measures what another left behind. Name
groups to run only those: `python -m deploy.bench.embedded pipeline http`.
"""

import importlib
import json
import subprocess
import sys

import msgspec

from deploy.bench.figures import Figure, show

GROUPS = ("pipeline", "http", "latency", "fleet", "startup")


def _run(group: str) -> list[Figure]:
    command = [sys.executable, "-m", "deploy.bench.embedded", "--group", group]
    # The command is our own.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=1800)  # noqa: S603
    if done.returncode:
        return [Figure(figure=f"{group} failed, see above", value=float(done.returncode), unit="exit code", ok=False)]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Figure])


def main(arguments: list[str]) -> int:
    """Run the groups named, all of them if none is, and return the exit code."""
    if arguments[:1] == ["--group"]:
        figures = importlib.import_module(f"deploy.bench.{arguments[1]}").measure()
        print(json.dumps(msgspec.to_builtins(figures)))
        return 0
    unknown = set(arguments) - set(GROUPS)
    if unknown:
        print(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    figures = []
    for group in arguments or GROUPS:
        print(f"measuring {group} ...", file=sys.stderr, flush=True)
        figures.extend(_run(group))
    return 0 if show("embedded", figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
