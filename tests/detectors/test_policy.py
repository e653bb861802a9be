"""The policy file: documented line by line, and no typo becomes a default."""

import re
from importlib import resources
from pathlib import Path

import pytest

from detectors.policy import Policies, Policy, PolicyError, load


def test_the_built_in_policy_is_usable_and_names_every_field() -> None:
    policy = load().default
    assert policy.alpha_kill == 1e-6
    assert policy.log10_to_kill == pytest.approx(6)
    text = resources.files("detectors").joinpath("policy.toml").read_text(encoding="utf-8")
    for name in (*Policy.__struct_fields__, "control_share_limit", "control_least", "rate_ratio", "baseline"):
        assert re.search(rf"^(# )?\[?{name}\b", text, re.MULTILINE), f"{name} is not in policy.toml"


def test_every_setting_of_the_built_in_policy_is_explained() -> None:
    """A line that sets something stands under a comment, alone or in a block of lines that share one."""
    text = resources.files("detectors").joinpath("policy.toml").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        assert "#" in block, f"nothing explains {block!r}"


def test_a_file_lays_over_the_built_in_policy_and_products_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        'dry_run = true\n[products."contoso/sensor"]\ntenants_least = 1\n'
        '[products."contoso/sensor".silence]\ncontrol_least = 7\n'
    )
    policies = load(path)
    assert policies.default.dry_run
    assert policies.default.tenants_least == 2
    sensor = policies.for_product("contoso", "sensor")
    assert (sensor.dry_run, sensor.tenants_least, sensor.silence.control_least) == (True, 1, 7)
    assert sensor.silence.control_share_limit == policies.default.silence.control_share_limit
    assert policies.for_product("contoso", "other") is policies.default
    assert sensor.digest != policies.default.digest
    assert len(policies.all()) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("alpha_kil = 1e-6", "alpha_kil"),
        ("alpha_kill = 0", "alpha_kill"),
        ("alpha_kill = 0.5", "alpha_kill <= alpha_hold"),
        ("devices_least = 0", "devices_least"),
        ('tolerated_ratio = "high"', "tolerated_ratio"),
        ("[weights]\nrate_ratio = 0.9", "sum to 1"),
        ("[silence]\nlimit = 3", "limit"),
        ('[products."sensor"]\nalpha_hold = 0.01', "vendor/product"),
        ('[products."a/b"]\nalpha_hodl = 0.01', "alpha_hodl"),
        ("products = 3", "products"),
        ("alpha_kill = ", "cannot read"),
    ],
)
def test_what_a_policy_may_not_hold_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=re.escape(named)):
        load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot read"):
        load(tmp_path / "none.toml")


def test_the_digest_names_the_content_not_the_order() -> None:
    assert (
        Policies({"dry_run": True, "tenants_least": 3}).default.digest
        == Policies({"tenants_least": 3, "dry_run": True}).default.digest
    )
