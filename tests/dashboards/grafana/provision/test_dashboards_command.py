"""`cordon dashboards` against a Grafana's API, by the real grafana-client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.cli.dashboards import dashboards
from support.grafana import TOKEN, FakeGrafana, fake_grafana


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with fake_grafana() as fake:
        yield fake


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def run(grafana: FakeGrafana, token: Path, command: str, *more: str) -> Result:
    given = ["--grafana", grafana.url, "--token-file", str(token), "--clickhouse", "http://store:8123"]
    given += ["--prometheus", "http://prom:9090", "--contact", "https://pager.example/hook"]
    return CliRunner().invoke(dashboards, [command, *given, *more])


def test_apply_puts_everything_and_a_second_time_nothing(grafana: FakeGrafana, token: Path) -> None:
    first = run(grafana, token, "apply")
    assert first.exit_code == 0, first.output
    assert "13 create, 0 update, 0 unchanged" in first.output
    writes = list(grafana.writes)
    second = run(grafana, token, "apply")
    assert "0 create, 0 update, 13 unchanged" in second.output
    assert grafana.writes == writes


def test_diff_changes_nothing_and_its_exit_code_says_whether_something_would(grafana: FakeGrafana, token: Path) -> None:
    assert run(grafana, token, "diff").exit_code == 1
    assert grafana.writes == []
    run(grafana, token, "apply")
    assert run(grafana, token, "diff").exit_code == 0


def test_a_change_by_a_person_is_shown_and_put_back(grafana: FakeGrafana, token: Path) -> None:
    run(grafana, token, "apply")
    grafana.held["/api/dashboards/uid/cordon-rollout"]["dashboard"]["title"] = "Mine"
    shown = run(grafana, token, "diff")
    assert '- "title": "Mine",' in shown.output
    assert run(grafana, token, "apply").exit_code == 0
    assert grafana.held["/api/dashboards/uid/cordon-rollout"]["dashboard"]["title"] == "Cordon / Rollout"


def test_the_rules_and_the_contact_point_are_updated_too(grafana: FakeGrafana, token: Path) -> None:
    run(grafana, token, "apply")
    grafana.held["/api/v1/provisioning/alert-rules/cordon-blind"]["for"] = "9h"
    grafana.held["/api/v1/provisioning/contact-points/cordon-contact"]["settings"]["url"] = "https://other.example"
    grafana.held["/api/folders/cordon"]["title"] = "Old"
    grafana.held["/api/datasources/uid/cordon-prometheus"]["url"] = "http://old:9090"
    assert "0 create, 4 update, 9 unchanged" in run(grafana, token, "apply").output
    assert run(grafana, token, "diff").exit_code == 0


def test_an_unknown_token_is_told_what_is_needed(grafana: FakeGrafana, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("nobody")
    result = run(grafana, wrong, "apply")
    assert result.exit_code == 2
    assert "service account" in result.output


def test_a_right_that_is_lacking_is_named(grafana: FakeGrafana, token: Path) -> None:
    grafana.forbidden = "datasources"
    result = run(grafana, token, "apply")
    assert result.exit_code == 2
    assert "datasources:create" in result.output


@pytest.mark.parametrize("version", ["9.5.2", "10.3.1"])
def test_an_old_grafana_is_refused(grafana: FakeGrafana, token: Path, version: str) -> None:
    grafana.version = version
    result = run(grafana, token, "diff")
    assert result.exit_code == 2
    assert "older than 10.4" in result.output


def test_something_else_than_a_grafana_is_refused(grafana: FakeGrafana, token: Path) -> None:
    grafana.version = ""
    assert "is that a Grafana?" in run(grafana, token, "diff").output


def test_nobody_there_is_an_error_that_says_so(token: Path) -> None:
    given = ["diff", "--grafana", "http://127.0.0.1:9", "--token-file", str(token)]
    result = CliRunner().invoke(dashboards, given)
    assert result.exit_code == 2
    assert "no Grafana answers" in result.output


def test_a_password_comes_from_a_file_and_is_not_shown(grafana: FakeGrafana, token: Path, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    assert "s3cret" not in run(grafana, token, "diff", "--clickhouse-password-file", str(secret)).output
