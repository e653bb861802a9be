"""Planning: what differs is told, what Grafana adds is none of our business, and twice is as good as once."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dashboards.grafana.provision.plan import Action, GrafanaError, MemoryGrafana, apply, plan
from dashboards.grafana.provision.resources import (
    ClickHouseSource,
    Kind,
    Resource,
    SourceError,
    alert_rules,
    contact_point,
    prometheus_source,
    wanted,
)

SOURCES = [ClickHouseSource("native://store:9000", password="s3cret").resource(), prometheus_source("http://prom:9090")]
EVERYTHING = wanted(SOURCES, contact_point("https://pager.example/hook"))


def actions(resources: list[Resource], grafana: MemoryGrafana) -> list[Action]:
    return [change.action for change in plan(resources, grafana)]


def test_an_empty_grafana_gets_everything_once() -> None:
    grafana = MemoryGrafana()
    apply(plan(EVERYTHING, grafana), grafana)
    assert len(grafana.held) == len(EVERYTHING)
    assert set(actions(EVERYTHING, grafana)) == {Action.NOTHING}


def test_a_board_that_a_person_changed_is_put_back_with_a_diff() -> None:
    grafana = MemoryGrafana()
    apply(plan(EVERYTHING, grafana), grafana)
    grafana.held[Kind.BOARD, "cordon-fleet"]["title"] = "Mine"
    (change,) = [change for change in plan(EVERYTHING, grafana) if change.action is not Action.NOTHING]
    assert change.resource.uid == "cordon-fleet"
    assert [line for line in change.lines if line.startswith(("-", "+"))][2:] == [
        '- "title": "Mine",',
        '+ "title": "Cordon / Fleet",',
    ]
    apply([change], grafana)
    assert set(actions(EVERYTHING, grafana)) == {Action.NOTHING}


def test_a_panel_added_by_a_person_is_a_difference() -> None:
    grafana = MemoryGrafana()
    apply(plan(EVERYTHING, grafana), grafana)
    grafana.held[Kind.BOARD, "cordon-fleet"]["panels"].append({"type": "text", "title": "Note"})
    assert Action.UPDATE in actions(EVERYTHING, grafana)


def test_what_grafana_adds_of_its_own_is_no_difference() -> None:
    grafana = MemoryGrafana()
    apply(plan(EVERYTHING, grafana), grafana)
    grafana.held[Kind.ALERT_RULE, "cordon-blind"]["updated"] = "2026-01-01T00:00:00Z"
    assert set(actions(EVERYTHING, grafana)) == {Action.NOTHING}


def test_a_refusal_ends_it_and_doing_it_again_goes_on() -> None:
    class Failing(MemoryGrafana):
        broken = True

        def put(self, resource: Resource, *, exists: bool) -> None:
            if self.broken and resource.kind is Kind.CONTACT_POINT:
                raise GrafanaError("refused")
            super().put(resource, exists=exists)

    grafana = Failing()
    with pytest.raises(GrafanaError):
        apply(plan(EVERYTHING, grafana), grafana)
    grafana.broken = False
    apply(plan(EVERYTHING, grafana), grafana)
    assert set(actions(EVERYTHING, grafana)) == {Action.NOTHING}


def test_a_password_is_no_part_of_what_is_compared_or_shown() -> None:
    lines = [line for change in plan(EVERYTHING, MemoryGrafana()) for line in change.lines]
    assert not any("s3cret" in line for line in lines)


@pytest.mark.parametrize("url", ["store:9000", "native://store", "ftp://store:21", "native://:9000"])
def test_a_clickhouse_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="write native://"):
        ClickHouseSource(url).resource()


@pytest.mark.parametrize("target", ["pager", "a@b@c", "ftp://x", "https://"])
def test_a_contact_that_is_neither_url_nor_address_is_refused(target: str) -> None:
    with pytest.raises(SourceError, match="webhook"):
        contact_point(target)


def test_alert_rules_and_contact_points_are_of_the_published_form(shared_dir: Path) -> None:
    definitions: dict[str, Any] = json.loads((shared_dir / "schemas" / "grafana-alerting.schema.json").read_text())
    for name, found in (
        *(("Rule", rule) for rule in alert_rules(with_contact=True)),
        ("ContactPoint", contact_point("ops@example.org")),
    ):
        schema = {**definitions, "$ref": f"#/definitions/{name}"}
        errors = list(jsonschema.Draft7Validator(schema).iter_errors({**found.body, "uid": found.uid}))
        assert not errors, f"{found.uid}: {[error.message for error in errors]}"


def test_every_alert_names_a_runbook_that_exists() -> None:
    root = Path(__file__).parents[4]
    for rule in alert_rules(with_contact=False):
        assert (root / rule.body["annotations"]["runbook"]).is_file(), rule.uid
