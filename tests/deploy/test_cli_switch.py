"""The kill switch's commands against a running listener: what they print, and what they exit with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.cli.keys import keys
from deploy.cli.switch import verify
from deploy.cli.watch import watch
from detectors.verdict import DecisionWord
from signals.killswitch.keys import KeyFiles
from signals.killswitch.signing import PublicKeys
from support.streams import OPERATOR, READER, StreamRig, eventually, streaming
from support.switches import KEYS, ROLLOUT, SIGNER, STRANGER, verdict

BY_NAME = {command.name: command for command in (verify, watch, keys)}


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        yield running


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with streaming() as running:
        yield running


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_bytes(KEYS.to_json())
    return path


def run(name: str, *arguments: str | Path, token: str = OPERATOR, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(
        BY_NAME[name], [str(argument) for argument in arguments], env={"CORDON_TOKEN": token}, input=stdin
    )


def test_watch_prints_each_verified_event(rig: StreamRig, key_file: Path) -> None:
    rig.say(verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL))
    eventually(lambda: len(rig.records(rig.killswitch)) == 2)
    result = run("watch", "--url", rig.url, "--key", key_file, "--from-start", "--count", "2", token=READER)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith(f"HOLD    {ROLLOUT}/1 crowdstrike/falcon-content 291: observing -> held by detector")
    assert second.startswith(f"KILL    {ROLLOUT}/2")
    as_json = run("watch", "--url", rig.url, "--from-start", "--count", "1", "--json", token=READER)
    assert '"specversion":"1.0"' in as_json.stdout
    assert "publishes itself" in as_json.stderr


def test_watch_ends_at_an_event_it_cannot_believe(rig: StreamRig, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers.json"
    strangers.write_bytes(PublicKeys([STRANGER.public]).to_json())
    rig.say(verdict(DecisionWord.KILL))
    result = run("watch", "--url", rig.url, "--key", strangers, "--from-start", "--count", "1", token=READER)
    assert (result.exit_code, "NOT BELIEVED" in result.stderr) == (1, True)


def test_watch_without_a_right_to_read_says_so(shared_rig: StreamRig) -> None:
    result = run("watch", "--url", shared_rig.url, "--count", "1", token="nobody")
    assert (result.exit_code, "401" in result.stderr) == (1, True)


class TestVerify:
    @pytest.fixture
    def event(self) -> bytes:
        return (Path(__file__).parents[1] / "golden" / "v1" / "envelope.json").read_bytes()

    def test_a_true_event_exits_with_0(self, event: bytes, key_file: Path, tmp_path: Path) -> None:
        file = tmp_path / "event.json"
        file.write_bytes(event)
        result = run("verify", file, "--key", key_file)
        assert (result.exit_code, result.output.startswith(f"verified: KILL    {ROLLOUT}/3")) == (0, True)

    def test_a_pem_and_standard_input_do_as_well(self, event: bytes, tmp_path: Path) -> None:
        pem = tmp_path / "key.pem"
        pem.write_bytes(SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert run("verify", "-", "--key", pem, stdin=event).exit_code == 0

    @pytest.mark.parametrize("change", [(b'"sig":"', b'"sig":"x'), (b"payload", b"pay"), (b"eyJ", b"eyK")])
    def test_an_altered_event_exits_with_1(self, event: bytes, key_file: Path, change: tuple[bytes, bytes]) -> None:
        result = run("verify", "-", "--key", key_file, stdin=event.replace(*change, 1))
        assert (result.exit_code, "NOT BELIEVED" in result.stderr) == (1, True)

    def test_a_huge_or_missing_file_is_an_error_in_words(self, key_file: Path, tmp_path: Path) -> None:
        assert "at most" in run("verify", "-", "--key", key_file, stdin=b"x" * (1 << 21)).stderr
        assert run("verify", tmp_path / "none.json", "--key", key_file).exit_code == 2
        assert "cannot read" in run("verify", "-", "--key", tmp_path / "none", stdin=b"{}").stderr


def test_keys_are_listed_from_the_folder_or_the_server(rig: StreamRig, tmp_path: Path) -> None:
    signer = KeyFiles(tmp_path).signer()
    assert run("keys", "list", "--data-dir", tmp_path).output == f"{signer.key_id}  Ed25519\n"
    published = run("keys", "export", "--url", rig.url)
    assert PublicKeys.parse(published.stdout_bytes).ids == [SIGNER.key_id]
    empty = run("keys", "list", "--data-dir", tmp_path / "empty")
    assert (empty.exit_code, "start Cordon once" in empty.stderr) == (1, True)
