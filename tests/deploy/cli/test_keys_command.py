"""`cordon keys`: list, export, rotate and retire, and a running Cordon that picks it up."""

from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from deploy.cli.keys import keys
from deploy.embedded import running
from ingest.clock import WallClock
from ingest.settings import Settings
from signals.killswitch.keys import KeyFiles
from signals.killswitch.signing import PublicKeys
from support.streams import eventually


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(keys, [str(argument) for argument in arguments])


def test_a_rotation_is_listed_and_exported(tmp_path: Path) -> None:
    old = KeyFiles(tmp_path).signer().key_id
    rotated = run("rotate", "--overlap", "2h", "--data-dir", tmp_path)
    assert rotated.exit_code == 0
    new = rotated.output.split()[0]
    listed = run("list", "--data-dir", tmp_path).output.splitlines()
    assert [line.split()[0] for line in listed] == [new, old]
    assert "signs from" in listed[0]
    assert "ends" in listed[1]
    exported = PublicKeys.parse(run("export", "--data-dir", tmp_path).stdout_bytes)
    assert exported.term(old).until_ms > WallClock().now_ms() + 7_000_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("rotate", "--overlap", "59s"), "at least 60 s"),
        (("rotate", "--overlap", "soon"), "for instance 24h"),
        (("retire", "abcdef"), "0 keys begin"),
    ],
)
def test_what_can_not_be_done_is_said(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    KeyFiles(tmp_path).signer()
    result = run(*arguments, "--data-dir", tmp_path)
    assert result.exit_code != 0
    assert says in result.output


@pytest.mark.parametrize("arguments", [("rotate",), ("retire", "abcdef"), ("list",), ("export",)])
def test_a_typo_in_the_folder_makes_no_keys(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--data", tmp_path / "typo")
    assert (result.exit_code, "typo" in result.output) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_the_settings_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kid = KeyFiles(tmp_path).signer().key_id
    monkeypatch.setenv("CORDON_DATA_DIR", str(tmp_path))
    assert run("list").output.split()[0] == kid


def test_the_only_key_that_signs_is_not_retired(tmp_path: Path) -> None:
    old = KeyFiles(tmp_path).signer().key_id
    result = run("retire", old, "--data-dir", tmp_path)
    assert (result.exit_code, "cordon keys rotate" in result.output) == (1, True)


def test_a_running_cordon_publishes_a_new_key_without_a_restart_and_the_trail_names_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), reports_port=0, streams_port=0, query_port=0, store=False)
    with running(settings) as cordon:
        new = run("rotate", "--data-dir", tmp_path).output.split()[0]
        eventually(lambda: new in httpx2.get(f"{cordon.streams_url}/v1/keys").text, 30)
        headers = {"authorization": f"Bearer {cordon.token('viewer')}"}
        trail = f"{cordon.streams_url}/v1/audit"
        eventually(lambda: f"key {new} was published" in httpx2.get(trail, headers=headers).text, 30)
