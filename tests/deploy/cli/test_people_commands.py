"""What people ask of the kill switch on the command line: what is printed, and what the exit code says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.cli.audit import audit
from deploy.cli.people import COMMANDS, PENDING_CODE
from detectors.scope import Scope
from support.streams import APPROVER, OPERATOR, READER, VIEWER, StreamRig, streaming
from support.switches import KEYS, ROLLOUT, START_MS

BY_NAME = {command.name: command for command in (*COMMANDS, audit)}


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        yield running


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with streaming() as running:
        yield running


def run(name: str, *arguments: str | Path, token: str = OPERATOR) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(BY_NAME[name], texts, env={"CORDON_TOKEN": token})


def test_hold_and_kill_say_what_became_of_it(rig: StreamRig) -> None:
    held = run("hold", ROLLOUT, "--reason", "odd", "--name", "Ada", "--url", rig.url)
    assert (held.exit_code, "is held (event 1)" in held.output) == (0, True)
    assert "is killed (event 2)" in run("kill", ROLLOUT, "--reason", "bad", "--url", rig.url).output
    again = run("hold", ROLLOUT, "--reason", "odd", "--url", rig.url)
    assert (again.exit_code, "already_killed" in again.stderr) == (1, True)


def test_a_part_is_held_for_a_while(rig: StreamRig) -> None:
    held = run("hold", ROLLOUT, "--reason", "odd", "--scope", "os_build=22631", "--for", "30m", "--url", rig.url)
    assert (held.exit_code, "(os_build=22631) is held" in held.output) == (0, True)
    switch = rig.events()[-1].switch
    assert (switch.scope, switch.until_ms) == (Scope(os_build="22631"), START_MS + 1_800_000)
    typo = run("hold", ROLLOUT, "--reason", "odd", "--scope", "build=22631", "--url", rig.url)
    assert (typo.exit_code, "os_build=BUILD" in typo.stderr) == (1, True)
    assert run("hold", ROLLOUT, "--reason", "odd", "--for", "soon", "--url", rig.url).exit_code == 2


def test_a_release_of_a_kill_waits_and_says_how_it_is_approved(rig: StreamRig) -> None:
    run("kill", ROLLOUT, "--reason", "bad", "--url", rig.url)
    waiting = run("release", ROLLOUT, "--reason", "fixed", "--url", rig.url)
    assert waiting.exit_code == PENDING_CODE
    line = run("approvals", "--url", rig.url, token=VIEWER).stdout
    assert (line.split()[0], "ops-1 asked: fixed" in line) == (ROLLOUT, True)
    command_id = line.split()[1].rstrip(":")
    assert f"cordon approve {ROLLOUT} {command_id}" in waiting.output
    mine = run("approve", ROLLOUT, command_id, "--reason", "yes", "--url", rig.url)
    assert (mine.exit_code, "forbidden" in mine.stderr) == (1, True)
    agreed = run("approve", ROLLOUT, command_id, "--reason", "yes", "--url", rig.url, token=APPROVER)
    assert (agreed.exit_code, "is released (event 2)" in agreed.output) == (0, True)
    assert run("approvals", "--url", rig.url, token=VIEWER).stdout == ""


def test_broken_glass_releases_at_once(rig: StreamRig) -> None:
    run("kill", ROLLOUT, "--reason", "bad", "--url", rig.url)
    released = run("release", ROLLOUT, "--reason", "false alarm", "--break-glass", "--url", rig.url)
    assert (released.exit_code, "is released" in released.output) == (0, True)
    assert rig.events()[-1].switch.break_glass


def test_mute_dry_run_and_arm(rig: StreamRig) -> None:
    assert run("mute", ROLLOUT, "--reason", "known", "--url", rig.url).exit_code == 2
    too_long = run("mute", ROLLOUT, "--reason", "known", "--for", "25h", "--url", rig.url)
    assert (too_long.exit_code, "too_long" in too_long.stderr, "mute_hours_max" in too_long.stderr) == (1, True, True)
    assert "is muted" in run("mute", ROLLOUT, "--reason", "known", "--for", "4h", "--url", rig.url).output
    assert run("dry-run", ROLLOUT, "--reason", "new policy", "--url", rig.url).exit_code == 0
    assert run("arm", ROLLOUT, "--reason", "enough seen", "--url", rig.url).exit_code == 0


@pytest.mark.parametrize(
    ("rollout", "token", "says"),
    [("r-typo", OPERATOR, "not_found"), (ROLLOUT, READER, "forbidden"), ("../../healthz", OPERATOR, "not_found")],
)
def test_a_refused_command_exits_with_1_and_the_reason(
    shared_rig: StreamRig, rollout: str, token: str, says: str
) -> None:
    result = run("kill", rollout, "--reason", "bad", "--url", shared_rig.url, token=token)
    assert (result.exit_code, says in result.stderr) == (1, True)


def test_an_absent_cordon_is_said_so() -> None:
    for arguments in (("kill", ROLLOUT, "--reason", "bad"), ("approvals",), ("audit", "verify")):
        result = run(*arguments, "--url", "http://127.0.0.1:9")
        assert (result.exit_code, "http://127.0.0.1:9" in result.stderr) == (1, True)


class TestAuditOverHttp:
    @pytest.fixture
    def key_file(self, tmp_path: Path) -> Path:
        path = tmp_path / "keys.json"
        path.write_bytes(KEYS.to_json())
        return path

    def test_it_shows_who_asked_for_what_and_verifies(self, rig: StreamRig, key_file: Path) -> None:
        run("kill", ROLLOUT, "--reason", "bad", "--url", rig.url)
        run("release", ROLLOUT, "--reason", "fixed", "--url", rig.url)
        shown = run("audit", "show", "--rollout", ROLLOUT, "--url", rig.url, token=VIEWER).stdout.splitlines()
        assert "kill by ops-1 (ops-1): applied: ops-1 asked for kill: bad" in shown[0]
        assert "release by ops-1 (ops-1): pending" in shown[1]
        assert run("audit", "show", "--rollout", "r-other", "--url", rig.url, token=VIEWER).stdout == ""
        checked = run("audit", "verify", "--url", rig.url, "--key", key_file, token=VIEWER)
        assert (checked.exit_code, "2 entries, 1 events" in checked.stdout) == (0, True)
        head = checked.stdout.split("head ")[1].split()[0]
        again = run("audit", "verify", "--url", rig.url, "--key", key_file, "--head", head, token=VIEWER)
        assert again.exit_code == 0
        other = head[:-1] + ("0" if head[-1] != "0" else "1")
        changed = run("audit", "verify", "--url", rig.url, "--key", key_file, "--head", other, token=VIEWER)
        assert (changed.exit_code, "altered: entry 2" in changed.stderr) == (1, True)
        assert run("audit", "verify", "--url", rig.url, "--head", "2", token=VIEWER).exit_code == 2
