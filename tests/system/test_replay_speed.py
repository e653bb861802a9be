"""The same scenario at any speed: the same decisions, the same evidence, the same losses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parents[2] / "detectors" / "backtest" / "scenarios" / "july-19.toml"
# What the wall clock and the machine have a part in; all else must be equal.
BY_THE_WALL = {"wall_seconds", "retries"}


def shortened(folder: Path) -> Path:
    """Write july-19 with a short warm-up and a short day."""
    text = LIBRARY.read_text(encoding="utf-8")
    for old, new in (
        ("duration_seconds = 7200", "duration_seconds = 480"),
        ("warm_up_seconds = 1800", "warm_up_seconds = 180"),
        ("check_in_seconds = 300", "check_in_seconds = 60"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "short.toml"
    path.write_text(text, encoding="utf-8")
    return path


def replayed(scenario: Path, out: Path, *options: str) -> dict[str, Any]:
    """Replay the scenario through an embedded Cordon of its own, and return the result."""
    command = [sys.executable, "-m", "deploy.cli", "replay", str(scenario), "--devices", "12000", "--json", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_a_replay_gives_the_same_verdicts_at_any_speed(tmp_path: Path) -> None:
    """As fast as it goes and at forty times real time: the kill falls on the same second, on the same evidence."""
    scenario = shortened(tmp_path)
    fast = replayed(scenario, tmp_path / "fast.json")
    slow = replayed(scenario, tmp_path / "slow.json", "--speed", "40")
    assert slow["wall_seconds"] > 480 / 40
    assert fast["killed_ms"] is not None
    assert {k: v for k, v in fast.items() if k not in BY_THE_WALL} == {
        k: v for k, v in slow.items() if k not in BY_THE_WALL
    }
