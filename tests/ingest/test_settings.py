"""Settings: a typo, a wrong type or a value out of range is an error that names the setting, never a default."""

from pathlib import Path

import pytest

from ingest.settings import NOT_SETTINGS, Settings, SettingsError, load, setting_docs


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "cordon.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_nothing_given_gives_the_defaults() -> None:
    assert load({}) == Settings()
    assert load({"PATH": "/bin", "CORDONED": "1"}) == Settings()


def test_environment_wins_over_the_file_and_overrides_over_both(tmp_path: Path) -> None:
    config = written(tmp_path, 'host = "10.0.0.1"\nreports_port = 1001\nstreams_port = 1002\n')
    environment = {"CORDON_REPORTS_PORT": "2001", "CORDON_STREAMS_PORT": "2002"}
    given = load(environment, config, streams_port=3002, query_port=None)
    assert (given.host, given.reports_port, given.streams_port) == ("10.0.0.1", 2001, 3002)
    assert given.query_port == Settings().query_port


@pytest.mark.parametrize("name", ["CORDON_REPORT_PORT", "CORDON_", "CORDON_TOKENS", "CORDON_token"])
def test_an_unknown_name_in_the_environment_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load({name: "1"})


def test_an_unknown_name_in_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="report_port"):
        load({}, written(tmp_path, "report_port = 1\n"))


def test_an_unknown_override_is_named() -> None:
    with pytest.raises(SettingsError, match="report_port"):
        load({}, report_port=1)


def test_names_that_are_no_settings_may_stand_in_the_environment() -> None:
    """A shell that exports CORDON_TOKEN must still be able to run `cordon up`."""
    assert set(NOT_SETTINGS) == {"CORDON_TOKEN", "CORDON_KAFKA_HOME"}
    assert load({"CORDON_TOKEN": "secret", "CORDON_KAFKA_HOME": "/opt/kafka"}) == Settings()


def test_the_token_is_no_setting_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="token"):
        load({}, written(tmp_path, 'token = "secret"\n'))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reports_port", "many"),
        ("reports_port", "-1"),
        ("reports_port", "65536"),
        ("reports_port", "80.5"),
        ("reports_port", ""),
        ("store", "maybe"),
        ("device_partitions", "0"),
        ("blind_seconds", "3601"),
        ("lane", "x" * 4097),
    ],
)
def test_a_wrong_type_or_range_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=rf"\.{name}`.*cordon settings"):
        load({f"CORDON_{name.upper()}": text})


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("65535", 65535)])
def test_the_limits_themselves_are_taken(text: str, port: int) -> None:
    assert load({"CORDON_REPORTS_PORT": text}).reports_port == port


@pytest.mark.parametrize(("text", "taken"), [("true", True), ("false", False), ("1", True), ("0", False)])
def test_a_switch_takes_the_usual_words(text: str, taken: bool) -> None:
    assert load({"CORDON_STORE": text}).store is taken


@pytest.mark.parametrize("text", ["host = ", b"host = '\xff'", "host = [1]\n"])
def test_a_file_that_is_no_toml_or_of_wrong_types_is_an_error(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(SettingsError):
        load({}, written(tmp_path, text))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        load({}, tmp_path / "absent.toml")


@pytest.mark.parametrize(("name", "environment", "default", "doc"), setting_docs())
def test_each_setting_is_documented_and_its_default_is_in_its_range(
    name: str, environment: str, default: object, doc: str
) -> None:
    assert environment == f"CORDON_{name.upper()}"
    assert doc.endswith(".")
    assert load({environment: str(default).lower() if isinstance(default, bool) else str(default)}) == Settings()
