"""`cordon report`: a Windows triage dump goes in at the command line, and its signature is found in the store."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.dumps import build_dump, july_19_plan
from support.system import CordonProcess, cordon, eventually, running


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CordonProcess]:
    """Run a Cordon with a store."""
    with running(tmp_path_factory.mktemp("dumps") / "data", store=True) as started:
        yield started


def report(process: CordonProcess, dump: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Post a dump of a device of tenant acme."""
    token = process.data / "agents.token"
    given = ("--gateway", process.urls["reports"], "--token-file", token, "--tenant", "acme", "--device", dump.stem)
    return cordon("report", dump, *given, *more)


def stored(process: CordonProcess, signature: str) -> list[list[str]]:
    """Ask the store by `cordon query` for the crashes of a signature, until there are some."""
    port = process.urls["query"].rsplit(":", 1)[1]
    sql = "SELECT signature, bugcheck, os_build, signature_module FROM crashes WHERE signature = {wanted:String}"
    for _ in eventually(20, f"signature {signature}"):
        done = cordon("query", sql, "--param", f"wanted={signature}", "--format", "TabSeparated", query_port=port)
        assert done.returncode == 0, done.stderr
        if done.stdout:
            break
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_built_dump_is_found_in_the_store(process: CordonProcess, tmp_path: Path) -> None:
    """The crash of 2024-07-19, built by hand and posted as of now, is stored under csagent.sys."""
    dump = tmp_path / "july.dmp"
    dump.write_bytes(build_dump(july_19_plan()))
    done = report(process, dump, "--as-if-now")
    assert done.returncode == 0, done.stderr
    assert "csagent.sys+0xe14ed" in done.stdout
    assert "accepted  1" in done.stdout
    assert stored(process, "csagent.sys|0x50") == [["csagent.sys|0x50", "80", "22631", "csagent.sys"]]


def test_the_real_dump_blames_the_driver_and_not_the_kernel(process: CordonProcess, shared_dir: Path) -> None:
    """The real sample's exception address points into the kernel; its stack and parameter 2 name amdppm.sys."""
    done = report(process, shared_dir / "samples" / "triage_x64.dmp", "--as-if-now")
    assert done.returncode == 0, done.stderr
    assert "amdppm.sys+0x334c" in done.stdout
    # The report keeps the code as it was read; the signature is of the code without its severity.
    found = stored(process, "amdppm.sys|0x7e")
    assert [(row[0], row[2], row[3]) for row in found] == [("amdppm.sys|0x7e", "19041", "amdppm.sys")]


def test_the_real_dump_as_it_is_is_too_old(process: CordonProcess, shared_dir: Path) -> None:
    """A dump of years ago is refused with the reason and the time in it; nothing is counted as accepted."""
    before = process.metric("reports_total", outcome="accepted"), process.metric("reports_total", outcome="too_old")
    done = report(process, shared_dir / "samples" / "triage_x64.dmp")
    assert done.returncode == 1
    assert "too_old" in done.stderr
    assert "Traceback" not in done.stderr
    after = process.metric("reports_total", outcome="accepted"), process.metric("reports_total", outcome="too_old")
    assert after == (before[0], before[1] + 1)


@pytest.mark.parametrize("kind", ["empty", "garbage", "truncated", "text", "missing", "folder"])
def test_what_is_no_dump_gets_a_clear_error(process: CordonProcess, tmp_path: Path, kind: str) -> None:
    """One line with the file's name, no traceback, and nothing posted."""
    dump = tmp_path / f"{kind}.dmp"
    whole = build_dump(july_19_plan())
    contents = {"empty": b"", "garbage": bytes(range(256)) * 64, "truncated": whole[:0x1800], "text": b"MDMP, honest"}
    if kind in contents:
        dump.write_bytes(contents[kind])
    elif kind == "folder":
        dump.mkdir()
    before = process.metric("reports_total", outcome="accepted")
    done = report(process, dump, "--as-if-now")
    assert done.returncode != 0
    assert dump.name in done.stderr
    assert "Traceback" not in done.stderr
    assert process.metric("reports_total", outcome="accepted") == before


def test_without_a_gateway_or_a_token_it_says_what_to_do(tmp_path: Path) -> None:
    """No gateway, no token, a token nobody knows: each says how to go on."""
    dump = tmp_path / "july.dmp"
    dump.write_bytes(build_dump(july_19_plan()))
    silent = cordon("report", dump, "--gateway", "http://127.0.0.1:9")
    assert silent.returncode != 0
    assert "cordon token add" in silent.stderr
    token = tmp_path / "some.token"
    token.write_text("cdn_nonsense")
    nobody = cordon("report", dump, "--gateway", "http://127.0.0.1:9", "--token-file", token)
    assert nobody.returncode == 1
    assert "cordon up" in nobody.stderr


def test_an_unknown_token_is_refused(process: CordonProcess, tmp_path: Path) -> None:
    """The gateway's word reaches the terminal."""
    dump, token = tmp_path / "july.dmp", tmp_path / "some.token"
    dump.write_bytes(build_dump(july_19_plan()))
    token.write_text("cdn_nonsense")
    done = cordon("report", dump, "--gateway", process.urls["reports"], "--token-file", token)
    assert done.returncode == 1
    assert "unauthenticated" in done.stderr
