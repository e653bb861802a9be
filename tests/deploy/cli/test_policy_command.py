"""`cordon policy`: a typo ends with 2, every field is listed with its meaning, and danger is named."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.cli.main import main
from deploy.cli.policy_docs import comments, fields_of
from deploy.cli.policy_words import explain, smallest_fleet, warnings
from detectors.policy import Policies, Policy, load
from detectors.soak_question import Watch


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["policy", *(str(argument) for argument in arguments)], env=env)


def of(**values: Any) -> Policy:
    return Policies(values).default


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(
        'alpha_hold = 1e-2\ntenants_least = 1\n[products."contoso/sensor"]\ndry_run = true\n'
        '[products."contoso/sensor".silence]\ncontrol_least = 7\n'
    )
    return path


def test_a_valid_policy_is_explained_for_everybody_and_for_each_product(file: Path) -> None:
    done = run("check", file, "--tenants", "1")
    assert done.exit_code == 0, done.output
    for text in ("is valid", "every product", "contoso/sensor", "hold at 10^2.0", "dry_run is true", "smallest fleet"):
        assert text in done.output
    one = run("check", file, "--tenants", "1", "--product", "contoso/sensor")
    assert "every product" not in one.output


@pytest.mark.parametrize("text", ["alpha_kil = 1e-6", "alpha_kill = 2.0", "[weights]\nsilence = 0.9", "alpha_kill ="])
def test_a_policy_that_cordon_would_refuse_ends_with_2(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    done = run("check", path)
    assert done.exit_code == 2
    assert str(path) in done.output
    assert run("show", path).exit_code == 2
    assert run("check", tmp_path / "absent.toml").exit_code == 2


def test_without_a_file_the_one_of_the_settings_is_meant(file: Path) -> None:
    named = run("show", "--json", env={"CORDON_POLICY_FILE": str(file)})
    assert msgspec.json.decode(named.stdout)["every product"]["alpha_hold"] == 1e-2
    built_in = run("show", "--json", env={"CORDON_POLICY_FILE": ""})
    assert msgspec.json.decode(built_in.stdout)["every product"]["alpha_hold"] == load().default.alpha_hold


def test_show_lists_every_field_with_its_meaning_and_what_differs(file: Path) -> None:
    done = run("show", file, "--product", "contoso/sensor")
    assert done.exit_code == 0, done.output
    for field in fields_of(load().default):
        assert f"\n{field.name} = " in done.output, field.name
    assert "silence.control_least = 7  # built in: 100" in done.output
    assert "alpha_hold = 0.01  # built in: 0.001" in done.output


def test_no_field_is_without_an_explanation() -> None:
    """The words come from policy.toml, so a new field brings its own."""
    assert [field.name for field in fields_of(load().default) if not field.doc] == []


def test_comments_are_read_as_a_person_reads_them() -> None:
    text = "# Over\n# two lines.\none = 1\ntwo = 2\n# Own.\nthree = 3\n\n[table]\n# Inner.\n# four = 4\n\nfive = 5\n"
    assert comments(text) == {
        "one": "Over two lines.",
        "two": "Over two lines.",
        "three": "Own.",
        "table.four": "Inner.",
        "table.five": "",
    }


def test_the_numbers_are_those_of_the_thresholds() -> None:
    found = explain(of(), "any", tenants=1, rollouts_per_year=1000)
    hold, kill = found.thresholds
    assert hold.log10_evidence == pytest.approx(3)
    assert kill.log10_evidence == pytest.approx(6)
    assert kill.log10_alone > 6.3
    needed = {(one.ratio, one.share): one.crashes for one in kill.crashes}
    few, many = needed[1000.0, 0.1], needed[10.0, 0.1]
    assert few is not None
    assert many is not None
    assert 8 <= few < many
    assert kill.fleet_least is not None
    assert hold.fleet_least is not None
    assert hold.fleet_least < kill.fleet_least < 200
    # Shares below the least are told as the least: harm twice as bad drowns there.
    assert needed[2.0, 0.01] is None


def test_leaving_one_tenant_out_takes_a_larger_fleet() -> None:
    alone, among = (smallest_fleet(Watch(alpha=1e-6, tenants=tenants))[0] for tenants in (1, 4))
    assert alone is not None
    assert among is not None
    assert alone < among


def test_where_nothing_suffices_no_fleet_is_named() -> None:
    assert smallest_fleet(Watch(alpha=1e-6, share_least=0.9999)) == (None, None)


def test_the_built_in_policy_warns_of_nothing() -> None:
    assert warnings(load().default, tenants=10, rollouts_per_year=1000) == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dry_run": True}, "dry_run"),
        ({"alpha_kill": 1e-4}, "false_kills_per_year"),
        ({"false_kills_per_year": 0.9}, "every other year"),
        ({"alpha_kill": 1e-2, "alpha_hold": 1e-2}, "equals alpha_kill"),
        ({"alpha_hold": 0.02}, "false holds a year"),
        ({"tolerated_ratio": 1.2}, "switched off"),
        ({"tolerated_ratio": 4.0}, "triples"),
        ({"share_least": 0.0}, "first seconds"),
        ({"devices_least": 1}, "one device"),
        ({"tenants_least": 1}, "one tenant that lies"),
        ({"tenants_least": 11}, "nothing is ever killed"),
        ({"trusted_tenants": ["acme"]}, "acme"),
        ({"weights": {"rate_ratio": 0.8, "silence": 0.0}}, "boot loop"),
        ({"weights": {"rate_ratio": 0.0, "silence": 0.8}}, "crashes are no evidence"),
        ({"weights": {"rate_ratio": 0.0, "baseline": 0.6}}, "the past"),
        ({"silence": {"control_share_limit": 0.6}}, "outages"),
        ({"activity_late_seconds": 900}, "forge"),
        ({"proceed_exposed_least": 5}, "too few devices"),
        ({"proceed_seconds": 10}, "before crashes are reported"),
        ({"gate": {"alpha": 0.3}}, "one harmful ring in 3"),
        ({"gate": {"ratio": 10.0}}, "passes to the next ring"),
        ({"gate": {"boots_least": 0}}, "boot brings out"),
        ({"gate": {"wakes_least": 0}}, "wake brings out"),
        ({"gate": {"share_least": 0.2}}, "smaller part"),
    ],
)
def test_danger_is_named(values: dict[str, Any], says: str) -> None:
    found = warnings(of(**values), tenants=10, rollouts_per_year=1000)
    assert any(says in text for text in found), found


def test_a_policy_blind_to_crashes_is_explained_without_thresholds() -> None:
    found = explain(of(weights={"rate_ratio": 0.0, "silence": 0.8}), "any", 1, 1000)
    assert found.thresholds == []
    assert found.proceeds


def test_json_holds_the_same_numbers(file: Path) -> None:
    done = run("check", file, "--tenants", "1", "--product", "contoso/sensor", "--json")
    (found,) = msgspec.json.decode(done.stdout)
    assert (found["product"], found["thresholds"][0]["log10_evidence"]) == ("contoso/sensor", 2.0)


def test_a_product_without_its_vendor_is_a_usage_error() -> None:
    assert run("check", "--product", "sensor").exit_code == 2
