"""`cordon soak`: both ways of asking agree, and an impossible question says what to change."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.cli.main import main
from detectors.policy import load
from detectors.soak import ring_needed
from detectors.soak_question import Harm, Ring, Watch


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["soak", *arguments])


def answer(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return msgspec.json.decode(done.stdout)


def test_hours_give_a_ring_and_that_ring_gives_the_hours_back() -> None:
    asked = answer("--ratio", "100", "--hours", "4")
    hold, kill = asked["levels"]
    assert (hold["decision"], kill["decision"]) == ("hold", "kill")
    assert hold["devices"] < kill["devices"]
    assert hold["crashes_median"] <= hold["crashes"] < kill["crashes"]
    back = answer("--ratio", "100", "--devices", str(kill["devices"]))["levels"][1]
    assert back["hours"] == pytest.approx(4.0, rel=0.02)
    both = answer("--ratio", "100", "--devices", str(kill["devices"]), "--hours", "4")["levels"][1]
    assert both["certainty"] == pytest.approx(0.95, abs=0.01)


def test_what_it_says_is_what_the_policys_threshold_takes() -> None:
    """The hold is the raw statistic's, with the policy's own tolerance, floor of the share, and weight."""
    policy = load().default
    watch = Watch(
        alpha=policy.alpha_hold,
        tolerated_ratio=policy.hold_ratio,
        weight=policy.weights.rate_ratio / 2,
        share_least=policy.share_least,
    )
    needed = ring_needed(Harm(ratio=100, crashes_per_device_day=0.001), watch, Ring(share=0.05), 4.0, 0.9)
    told = answer("--ratio", "100", "--share", "0.05", "--hours", "4", "--certainty", "0.9")
    assert told["levels"][0]["devices"] == needed


def test_a_crash_probability_and_a_fleet_are_understood() -> None:
    asked = answer("--crash-probability", "0.2", "--within-hours", "0.5", "--fleet", "20000", "--hours", "1")
    assert asked["harm"]["window_hours"] == 0.5
    # The larger half crashes 20 % of the ring: that many and some more must be exposed.
    assert 10 < asked["levels"][1]["devices"] < 400


def test_neither_gives_a_table_of_rings() -> None:
    done = run("--ratio", "50", "--tenants", "1")
    assert done.exit_code == 0, done.output
    assert "100,000" in done.output
    assert "gate: each cell of the next ring needs" in done.output
    assert "1 tenants < tenants_least 2" in done.output


def test_a_policy_file_and_a_products_part_of_it_count(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('dry_run = true\n[products."contoso/sensor"]\nalpha_hold = 1e-6\n')
    arguments = ("--ratio", "100", "--hours", "4", "--tenants", "1", "--policy", str(path))
    general, product = answer(*arguments), answer(*arguments, "--product", "contoso/sensor")
    assert general["levels"][0]["devices"] < product["levels"][0]["devices"]
    assert "dry_run" in general["notes"][0]


def test_tolerated_harm_fails_and_says_what_to_change() -> None:
    done = run("--ratio", "1.1", "--hours", "24")
    assert done.exit_code == 1
    assert "cannot be noticed at tolerated_ratio 1.2: lower tolerated_ratio" in done.output
    assert "cannot be noticed at tolerated_ratio 1.5: lower tolerated_ratio" in done.output
    as_json = run("--ratio", "1.1", "--hours", "24", "--json")
    assert as_json.exit_code == 1
    assert "tolerated_ratio" in msgspec.json.decode(as_json.stdout)["levels"][0]["why_not"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--hours", "1"], 2, "either --ratio or --crash-probability"),
        (["--ratio", "2", "--crash-probability", "0.1"], 2, "either"),
        (["--ratio", "9", "--hours", "0"], 2, "--hours"),
        (["--ratio", "9", "--share", "1", "--hours", "1"], 1, "no control left"),
        (["--ratio", "9", "--share", "0.1", "--fleet", "9", "--hours", "1"], 1, "either the exposed share"),
        (["--ratio", "9", "--background", "0", "--hours", "1"], 1, "background"),
        (["--ratio", "9", "--hours", "1", "--certainty", "1"], 1, "certainty"),
        (["--ratio", "9", "--hours", "1", "--tenants", "0"], 1, "tenants"),
        (["--ratio", "9", "--hours", "1", "--policy", "/nowhere.toml"], 1, "cannot read the policy"),
        (["--ratio", "9", "--hours", "1", "--product", "sensor"], 2, "VENDOR/PRODUCT"),
    ],
)
def test_a_bad_question_is_refused(arguments: list[str], code: int, says: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, says in done.output) == (code, True), done.output
