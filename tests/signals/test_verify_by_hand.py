"""The README's lines for checking an event by hand do what they say, with OpenSSL and no code of ours."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.switches import KEYS

ROOT = Path(__file__).parents[2]


def lines_of_the_readme() -> str:
    found = re.search(r"```sh\n(python3 - .*?)```", (ROOT / "signals" / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def by_hand(folder: Path, envelope: bytes) -> subprocess.CompletedProcess[str]:
    if shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("openssl is missing")
        pytest.skip("no openssl on this machine")
    (folder / "event.json").write_bytes(envelope)
    (folder / "cordon-keys.json").write_bytes(KEYS.to_json())
    return subprocess.run(
        ["bash", "-c", lines_of_the_readme()], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_true_event_is_verified_by_hand(tmp_path: Path) -> None:
    envelope = (ROOT / "tests" / "golden" / "v1" / "envelope.json").read_bytes()
    done = by_hand(tmp_path, envelope)
    assert (done.returncode, done.stdout.strip()) == (0, "Signature Verified Successfully"), done.stderr


def test_an_altered_event_is_refused_by_hand(tmp_path: Path) -> None:
    envelope = (ROOT / "tests" / "golden" / "v1" / "envelope.json").read_bytes().replace(b"eyJ", b"eyK", 1)
    assert by_hand(tmp_path, envelope).returncode != 0
