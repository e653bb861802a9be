"""`cordon up` that can't work as it is set up says so in one line, says what to do, and ends with an error."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.system import CordonProcess, cordon, running

FREE = {"reports_port": 0, "streams_port": 0, "query_port": 0}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CordonProcess]:
    """Run a Cordon that others get in the way of."""
    with running(tmp_path_factory.mktemp("other") / "data") as process:
        yield process


def refused(data: Path, *needles: str, **settings: object) -> None:
    """Assert that `cordon up` ends at once, and says all of `needles` in one line that is no traceback."""
    done = cordon("up", "--no-store", "--data", data, seconds=20, **(FREE | settings))
    assert done.returncode != 0
    assert "ready" not in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    for needle in needles:
        assert needle in line, line


def test_an_unknown_setting(tmp_path: Path) -> None:
    """A typo in an environment variable is named."""
    refused(tmp_path / "data", "CORDON_REPORTS_PROT", "cordon settings", reports_prot=8400)
    assert not (tmp_path / "data").exists()


def test_an_unknown_name_in_the_configuration_file(tmp_path: Path) -> None:
    """A typo in the file is named too, and nothing has been made by then."""
    config = tmp_path / "cordon.toml"
    config.write_text("linger_msec = 5\n")
    done = cordon("up", "--no-store", "--data", tmp_path / "data", "--config", config, **FREE)
    assert done.returncode != 0
    assert "linger_msec" in done.stderr
    assert "cordon settings" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("port", ["70000", "http"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    """A port out of range, or no number, is refused with its name and the place to look for ranges."""
    refused(tmp_path / "data", "reports_port", "cordon settings", reports_port=port)


def test_a_port_in_use(tmp_path: Path) -> None:
    """The line names the listener, the port and the setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(tmp_path / "data", f"127.0.0.1:{port}", "streams_port", streams_port=port)


def test_a_port_of_another_cordon(tmp_path: Path, other: CordonProcess) -> None:
    """The same with a port that another Cordon serves."""
    port = int(other.urls["reports"].rsplit(":", 1)[1])
    refused(tmp_path / "data", f"127.0.0.1:{port}", "reports_port", "another Cordon", reports_port=port)
    assert other.http.get(f"{other.urls['reports']}/readyz").status_code == 200


def test_a_second_cordon_on_the_same_data(other: CordonProcess) -> None:
    """The second one leaves the first and its data alone."""
    refused(other.data, str(other.data))
    assert other.http.get(f"{other.urls['reports']}/readyz").status_code == 200


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    """The line names the file."""
    refused(tmp_path / "data", "no-such-policy.toml", policy_file=tmp_path / "no-such-policy.toml")


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("alpha_kil = 1e-6\n", "alpha_kil"),
        ("alpha_kill = 7.0\n", "alpha_kill"),
        ("[weights]\nrate_ratio = 0.9\nmagic = 0.1\n", "magic"),
        ("alpha_kill = \n", "policy.toml"),
    ],
)
def test_a_policy_that_is_wrong(tmp_path: Path, text: str, needle: str) -> None:
    """A typo, a value out of range, a wrong type and what is not TOML are each named; nothing becomes a default."""
    policy = tmp_path / "policy.toml"
    policy.write_text(text)
    refused(tmp_path / "data", needle, policy_file=policy)


def test_a_policy_that_cannot_be_decoded(tmp_path: Path) -> None:
    """A file that is no text is named too."""
    policy = tmp_path / "policy.toml"
    policy.write_bytes(b"\xff\xfe\x00alpha")
    refused(tmp_path / "data", "policy.toml", policy_file=policy)


def test_a_lane_that_is_no_name(tmp_path: Path) -> None:
    """A lane that could be mistaken for another topic is refused."""
    refused(tmp_path / "data", "lane", lane="Live.Kill")


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    """A path that can't be a folder is named."""
    (tmp_path / "data").write_text("something else")
    refused(tmp_path / "data", "data")


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """Something else lies where the store belongs: the log that was opened before it keeps nobody waiting."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "store").write_text("something else")
    done = cordon("up", "--store", "--data", tmp_path / "data", seconds=30, **FREE)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "store" in done.stderr.strip().splitlines()[-1]


def test_a_log_of_another_partition_count(tmp_path: Path) -> None:
    """The partition count is fixed for the installation's life: another one is refused, the old one still starts."""
    with running(tmp_path / "data", device_partitions=4):
        pass
    refused(tmp_path / "data", "partition", device_partitions=8)
    with running(tmp_path / "data", device_partitions=4) as process:
        assert process.http.get(f"{process.urls['reports']}/readyz").status_code == 200


def test_tokens_that_cannot_be_read(tmp_path: Path) -> None:
    """A broken token file is named: an installation without its tokens must not start as if it had none."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tokens.toml").write_text("[[tokens\n")
    refused(tmp_path / "data", "tokens.toml")


def test_a_pseudonym_key_that_is_damaged(tmp_path: Path) -> None:
    """A key of the wrong length is named: with a new one every device would become a stranger."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pseudonym.key").write_bytes(b"short")
    refused(tmp_path / "data", "pseudonym.key")
