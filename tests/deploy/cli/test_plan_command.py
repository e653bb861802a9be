"""`cordon plan`: what the gateway would advise, without one; what is no declaration says what to change."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.cli.main import main
from deploy.cli.plan import rollout_of
from detectors.planning import PolicyPlanner
from detectors.policy import load

BODY: dict[str, Any] = {
    "vendor": "contoso",
    "product": "sensor",
    "update_kind": "content",
    "version": "291",
    "rings": [{"name": "canary", "starts_at_ms": 1_721_362_140_000, "over_seconds": 600}],
    "ring_devices": {"canary": 600},
}


def run(tmp_path: Path, body: Any, *arguments: str) -> Result:
    path = tmp_path / "declaration.json"
    path.write_bytes(body if isinstance(body, bytes) else msgspec.json.encode(body))
    return CliRunner().invoke(main, ["plan", str(path), *arguments])


def test_it_prints_what_the_planner_advises(tmp_path: Path) -> None:
    done = run(tmp_path, BODY, "--json")
    advice = PolicyPlanner(load()).advise(rollout_of(msgspec.json.encode(BODY)))
    assert (done.exit_code, msgspec.json.decode(done.stdout)) == (0, msgspec.to_builtins(advice))
    shown = run(tmp_path, BODY)
    assert shown.exit_code == 0
    assert advice.rings[0].per_minute_max is not None
    assert f" {int(advice.rings[0].per_minute_max)} " in shown.output


def test_a_declaration_that_exceeds_it_ends_with_1_and_says_what_to_push_at(tmp_path: Path) -> None:
    done = run(tmp_path, BODY | {"ring_devices": {"canary": 60_000}})
    assert done.exit_code == 1
    assert "push at most" in done.output


def test_it_reads_standard_input() -> None:
    done = CliRunner().invoke(main, ["plan", "-", "--json"], input=msgspec.json.encode(BODY))
    assert (done.exit_code, msgspec.json.decode(done.stdout)["rings"][0]["ring"]) == (0, "canary")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BODY | {"ring_devices": {"canray": 600}}, "names 'canray', which is none of the rings: canary"),
        (BODY | {"rings": [{"name": "canary", "share": 1.5}]}, "share"),
        (BODY | {"rings": [{"name": "canary", "over_seconds": -1}]}, "over_seconds"),
        (BODY | {"rings": [{"name": "canary"}, {"name": "canary"}]}, "a ring is declared twice"),
        (BODY | {"speed": 4}, "speed"),
        (b"not json", "is no rollout declaration"),
    ],
)
def test_what_is_no_declaration_is_refused_with_what_to_change(tmp_path: Path, body: Any, message: str) -> None:
    done = run(tmp_path, body)
    assert done.exit_code == 1
    assert message in done.output
    assert "is no rollout declaration" in done.output
