"""Alert rules: valid, tested both ways on synthetic series, of declared metrics, each with its runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.metrics import METRICS, Kind
from support.programs import program
from support.repository_files import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
TESTS = sorted(Path(__file__).parent.glob("*.test.yml"))
_NAME = re.compile(r"\bcordon_\w+")
_SUFFIXES = {Kind.COUNTER: ("",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_count", "_sum")}


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            found += group["rules"]
    return found


ALERTS = [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str) -> str:
    ran = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, cwd=FOLDER, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", *map(str, RULES))


def test_the_example_configuration_is_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.example.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda file: str(file.name))
def test_every_alert_fires_and_keeps_quiet_as_it_should(file: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(file))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_is_tested_both_ways(rule: dict[str, Any]) -> None:
    tried = [
        bool(case["exp_alerts"])
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert {True, False} <= set(tried)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook"} <= set(rule["annotations"])
    assert (REPOSITORY / rule["annotations"]["runbook"]).is_file()


def test_only_declared_metrics_are_used() -> None:
    declared = {f"cordon_{metric.name}{suffix}" for metric in METRICS for suffix in _SUFFIXES[metric.kind]}
    used = {name for rule in rules() for name in _NAME.findall(rule["expr"])}
    assert used - declared == set()
