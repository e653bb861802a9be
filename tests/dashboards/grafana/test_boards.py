"""The boards as they are committed: of the published form, fresh, linked, described, and made of queries that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dashboards.grafana import queries
from dashboards.grafana.build import BOARDS, folder, written
from dashboards.grafana.provision.resources import alerting_file
from ingest.metrics import METRICS

UIDS = ["cordon-drivers", "cordon-fleet", "cordon-killswitch", "cordon-pipeline", "cordon-recovery", "cordon-rollout"]


def committed(uid: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder() / f"{uid}.json").read_text())
    return made


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel that is not a row."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


@pytest.fixture(scope="module")
def grafana_schema(shared_dir: Path) -> dict[str, Any]:
    """Return Grafana's schema of a dashboard, open where Grafana's own is.

    The published JSON schema was made from CUE, where these three may hold anything; it says `object` of two of them
    and closes the third. Grafana itself writes a name into the first for a `byName` matcher.
    """
    schema: dict[str, Any] = json.loads((shared_dir / "schemas" / "grafana-dashboard.schema.json").read_text())
    definitions = schema["definitions"]
    definitions["MatcherConfig"]["properties"]["options"] = {}
    definitions["DynamicConfigValue"]["properties"]["value"] = {}
    definitions["AnnotationTarget"]["additionalProperties"] = True
    return schema


@pytest.mark.parametrize("uid", UIDS)
def test_a_board_is_of_the_published_form(uid: str, grafana_schema: dict[str, Any]) -> None:
    errors = list(jsonschema.Draft7Validator(grafana_schema).iter_errors(committed(uid)))
    assert not errors, "\n".join(f"{list(error.absolute_path)}: {error.message[:200]}" for error in errors)


def test_the_committed_boards_are_fresh() -> None:
    """`make dashboards` would change nothing."""
    assert [board.uid for board in BOARDS if (folder() / f"{board.uid}.json").read_text() != written(board)] == []
    alerting = json.loads((folder().parent / "provisioning" / "alerting" / "cordon.json").read_text())
    assert alerting == alerting_file()


def test_files_for_provisioning_name_the_data_sources_that_the_boards_use() -> None:
    file = folder().parent / "provisioning" / "datasources" / "cordon.yaml"
    found = {source["uid"]: source["type"] for source in yaml.safe_load(file.read_text())["datasources"]}
    used = {
        (target["datasource"]["uid"], target["datasource"]["type"])
        for uid in UIDS
        for panel in panels(committed(uid))
        for target in panel["targets"]
        if "datasource" in target
    }
    assert set(found.items()) >= used


def test_every_board_is_committed_and_none_is_left_over() -> None:
    assert sorted(board.uid for board in BOARDS) == UIDS
    assert sorted(file.stem for file in folder().glob("*.json")) == UIDS


@pytest.mark.parametrize("uid", UIDS)
def test_every_panel_says_what_it_shows_and_what_an_empty_one_means(uid: str) -> None:
    for panel in panels(committed(uid)):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


@pytest.mark.parametrize("uid", UIDS)
def test_panels_do_not_overlap_and_keep_within_the_width(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in committed(uid)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("uid", UIDS)
def test_boards_link_to_each_other_and_to_the_runbooks(uid: str) -> None:
    links = committed(uid)["links"]
    assert [link["type"] for link in links] == ["dashboards", "link"]
    assert links[0]["tags"] == ["cordon"]
    assert committed(uid)["tags"] == ["cordon"]


@pytest.mark.parametrize("uid", UIDS)
def test_links_inside_a_board_lead_to_boards_that_exist(uid: str) -> None:
    text = json.dumps(committed(uid))
    for part in text.split('"/d/')[1:]:
        assert part.split("?")[0] in UIDS


@pytest.mark.parametrize("uid", UIDS)
def test_variables_stand_before_those_that_depend_on_them(uid: str) -> None:
    known: set[str] = set()
    for variable in committed(uid)["templating"].get("list", []):
        used = {part.split("}")[0].split(":")[0] for part in variable["query"].split("${")[1:]}
        assert used <= known, variable["name"]
        known.add(variable["name"])


@pytest.mark.parametrize("uid", UIDS)
def test_a_board_uses_only_variables_that_it_has(uid: str) -> None:
    board = committed(uid)
    known = {variable["name"] for variable in board["templating"].get("list", [])}
    for panel in panels(board):
        for target in panel["targets"]:
            text = target.get("rawSql") or target["expr"]
            assert {part.split("}")[0].split(":")[0] for part in text.split("${")[1:]} <= known, panel["title"]


def test_every_query_file_is_used() -> None:
    text = "".join((folder() / f"{uid}.json").read_text() for uid in UIDS)
    text += (folder().parent / "provisioning" / "alerting" / "cordon.json").read_text()
    unused = [
        name for name in queries.names() if json.dumps(queries.query(name).text, ensure_ascii=False)[1:-1] not in text
    ]
    assert unused == []


@pytest.mark.parametrize("name", [name for name in queries.names() if queries.query(name).language == "promql"])
def test_a_metric_query_names_only_declared_metrics(name: str) -> None:
    """An undeclared one gives nothing, which a panel shows as calm."""
    declared = {f"cordon_{metric.name}" for metric in METRICS}
    named = {re.sub(r"_bucket$", "", one) for one in re.findall(r"cordon_\w+", queries.query(name).text)}
    assert named
    assert named <= declared


def test_a_query_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(queries.QueryError, match="0 files of that name"):
        queries.query("fleet/no_such")
