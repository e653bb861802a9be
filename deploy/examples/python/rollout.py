"""A rollout script in Python: push ring after ring, a part at a time, and only while Cordon says proceed.

It believes nothing that is not signed, keeps what it knows in a file, and goes by the lease: where Cordon is blind,
dead or unreachable it waits, and gives up after --patience. Ends with 0 when everything was pushed, 3 when the rollout
was killed (after --rollback), 4 when patience ran out, 1 when it could not begin.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from signals.client import ClientError, Effective, KillSwitchClient, PublicKeys, SwitchError

KILLED, IMPATIENT = 3, 4


def main() -> int:
    """Run the rollout and return the exit code."""
    wish = arguments()
    keys = PublicKeys.parse(wish.keys.read_bytes())
    token = wish.token_file.read_text().strip()
    with KillSwitchClient(
        wish.url, keys, token=token, rollout=wish.rollout, from_start=True, state=wish.state, key_file=wish.keys
    ) as client:
        client.follow(timeout_seconds=min(wish.patience, 15.0))
        for ring in wish.rings:
            for part in range(1, wish.parts + 1):
                said = wait(client, wish.rollout, ring, wish.patience)
                if said.killed:
                    say(f"killed, rolling back: {said.sentence}")
                    subprocess.run([*wish.rollback, ring], check=True)  # noqa: S603  # the caller's own command
                    return KILLED
                if not said.proceed:
                    say(f"no proceed within {wish.patience:g} s, nothing more is pushed: {said.sentence}")
                    return IMPATIENT
                say(f"{ring}, part {part} of {wish.parts}: {said.sentence}")
                subprocess.run([*wish.push, ring, str(part)], check=True)  # noqa: S603  # the caller's own command
    return 0


def wait(client: KillSwitchClient, rollout: str, ring: str, patience: float) -> Effective:
    """Return the first word that is no hold, or the hold that patience ended with."""
    until = time.monotonic() + patience
    while (said := client.decision(rollout, ring=ring)).held and time.monotonic() < until:
        client.wait(1.0)
    return said


def say(text: str) -> None:
    """Tell people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Push a rollout ring by ring while Cordon says proceed.")
    parser.add_argument("rings", nargs="+", help="rings in their order, as the rollout declares them")
    parser.add_argument("--rollout", required=True, help="id of the rollout, as POST /v1/rollouts answered it")
    parser.add_argument("--url", default="http://127.0.0.1:8401", help="Cordon's streams listener")
    parser.add_argument("--keys", type=Path, required=True, help="what `cordon keys export` printed")
    parser.add_argument("--token-file", type=Path, required=True, help="a token with the role rollout")
    parser.add_argument("--state", type=Path, required=True, help="file that keeps what is known over a restart")
    parser.add_argument("--push", nargs="+", required=True, help="command that pushes; gets the ring and the part")
    parser.add_argument("--rollback", nargs="+", required=True, help="command that rolls back; gets the ring")
    parser.add_argument("--parts", type=int, default=4, help="parts that each ring is pushed in")
    parser.add_argument("--patience", type=float, default=3600, help="seconds to wait for a proceed")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ClientError, SwitchError, OSError) as error:
        say(f"nothing more is pushed: {error}")
        sys.exit(1)
