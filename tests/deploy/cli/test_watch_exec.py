"""`cordon watch --exec`: a command on each event and on each lease that ends, in order, bounded, and over a restart."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.cli.exec_hook import CommandLineError, ExecHook, environment
from detectors.scope import WHOLE
from detectors.verdict import DecisionWord
from ingest.sight import Sight
from signals.client.turns import GRACE_SECONDS, Turn, Turns
from signals.killswitch.effective import Effective, EffectiveReason
from signals.killswitch.lease import LeaseTerms
from signals.killswitch.leasing import Granting
from signals.killswitch.verify import VerifiedEvent
from support.streams import READER, StreamRig, eventually
from support.switches import KEYS, ROLLOUT, SwitchRig, verdict

SECONDS_MAX = 40.0
PROCEED = Effective(DecisionWord.PROCEED, EffectiveReason.LEASE_VALID, "go", 1)
EXPIRED = Effective(DecisionWord.HOLD, EffectiveReason.LEASE_EXPIRED, "gone")
OUTDATED = Effective(DecisionWord.HOLD, EffectiveReason.LEASE_OUTDATED, "soon")
KILLED = Effective(DecisionWord.KILL, EffectiveReason.KILLED, "stop")


def events(count: int) -> list[VerifiedEvent]:
    rig = SwitchRig()
    words = (DecisionWord.HOLD, DecisionWord.PROCEED)
    rig.say(*(verdict(words[n % 2], at_ms=rig.clock.now_ms() + n) for n in range(count)))
    rig.settle()
    return rig.events()


class TestTurns:
    def make(self, *said: Effective) -> tuple[Turns, list[Effective], list[float]]:
        decisions, clock = list(said), [0.0]
        turns = Turns(lambda _: decisions[0], lambda: clock[0])
        return turns, decisions, clock

    def test_a_lease_that_ends_or_comes_back_is_told_once(self) -> None:
        turns, said, _ = self.make(PROCEED)
        turns.follow(ROLLOUT)
        assert [turn.said for turn in turns.due()] == [PROCEED]
        assert turns.due() == []
        said[0] = EXPIRED
        assert [turn.said for turn in turns.due()] == [EXPIRED]
        assert turns.due() == []
        said[0] = PROCEED
        assert [turn.said for turn in turns.due()] == [PROCEED]

    def test_every_event_is_told_in_order_with_what_to_do_now(self) -> None:
        turns, _, _ = self.make(KILLED)
        for event in events(3):
            turns.take(event)
        found = turns.due()
        assert [turn.event.switch.number for turn in found if turn.event] == [1, 2, 3]
        assert {turn.said.decision for turn in found} == {DecisionWord.KILL}
        assert turns.empty

    def test_the_lease_behind_an_event_is_waited_for_but_not_for_long(self) -> None:
        turns, said, clock = self.make(OUTDATED)
        turns.take(events(1)[0])
        assert turns.due() == []
        assert not turns.empty
        said[0] = PROCEED
        assert [turn.said for turn in turns.due()] == [PROCEED]
        said[0] = OUTDATED
        turns.take(events(1)[0])
        clock[0] += GRACE_SECONDS
        assert [turn.said for turn in turns.due()] == [OUTDATED]


def turn(rollout: str = ROLLOUT, number: int = 0) -> Turn:
    said = Effective(DecisionWord.HOLD, EffectiveReason.LEASE_EXPIRED, f"turn {number}", number, WHOLE)
    return Turn(rollout, said, None, None)


class TestExecHook:
    @pytest.fixture
    def lines(self) -> list[str]:
        return []

    def test_commands_of_a_rollout_run_one_after_the_other(self, tmp_path: Path, lines: list[str]) -> None:
        out = tmp_path / "out"
        hook = ExecHook(f"sh -c 'sleep 0.01; echo $CORDON_UNTIL_MS >> {out}'", 30, lines.append)
        for number in range(20):
            hook.submit(turn(number=number))
        hook.close()
        assert out.read_text().split() == [str(number) for number in range(20)]
        assert lines == []

    def test_a_hanging_command_is_ended_with_its_children_and_delays_no_other_rollout(
        self, tmp_path: Path, lines: list[str]
    ) -> None:
        out = tmp_path / "out"
        script = f"case $CORDON_ROLLOUT in r-slow) sleep 600;; *) echo $CORDON_ROLLOUT >> {out};; esac"
        hook = ExecHook(f'sh -c "{script}"', 3, lines.append)
        begun = time.monotonic()
        hook.submit(turn("r-slow"))
        hook.submit(turn("r-quick"))
        eventually(lambda: out.exists() and out.read_text() == "r-quick\n", 20)
        assert not hook.idle
        hook.close()
        assert time.monotonic() - begun < 60
        assert ["took longer than 3 s" in line for line in lines] == [True]

    def test_a_command_that_fails_or_is_not_there_is_reported(self, lines: list[str]) -> None:
        for command in ("sh -c 'echo broken >&2; exit 3'", "/no/such/program"):
            hook = ExecHook(command, 30, lines.append)
            hook.submit(turn())
            hook.close()
        assert "ended with 3" in lines[0]
        assert "broken" in lines[0]
        assert "can't be run" in lines[1]

    @pytest.mark.parametrize("command", ["", "sh -c 'open"])
    def test_what_is_no_command_line_is_an_error(self, command: str) -> None:
        with pytest.raises(CommandLineError):
            ExecHook(command, 30, print)

    def test_the_environment_says_what_to_do_and_what_happened(self) -> None:
        [event] = events(1)
        told = environment(Turn(ROLLOUT, KILLED, event, None))
        assert (told["CORDON_DECISION"], told["CORDON_STATE"], told["CORDON_NUMBER"]) == ("kill", "held", "1")
        assert (told["CORDON_CAUSE"], told["CORDON_REASON"]) == ("detector", "killed")
        ended = environment(Turn(ROLLOUT, EXPIRED, None, None))
        assert (ended["CORDON_CAUSE"], ended["CORDON_REASON"], ended["CORDON_DECISION"]) == (
            "lease", "lease_expired", "hold",
        )  # fmt: skip


class Sees:
    """Always sees."""

    def sight(self) -> Sight:
        return Sight(seeing=True)


class WallRig(StreamRig):
    """A listener by the wall clock, whose stage grants short leases."""

    granting = Granting(LeaseTerms(seconds=3.0, verdict_seconds=3600.0, heard_share_least=0.0), Sees())


@pytest.fixture
def rig() -> Iterator[WallRig]:
    made = WallRig()
    ending = threading.Event()

    def tick() -> None:
        while not ending.wait(0.05):
            made.clock.drive_to(max(made.clock.now_ms(), time.time_ns() // 1_000_000))

    ticking = threading.Thread(target=tick)
    made.clock.drive_to(time.time_ns() // 1_000_000)
    made.begin()
    ticking.start()
    try:
        yield made
    finally:
        ending.set()
        ticking.join(10)
        made.end()


class Watching:
    """`cordon watch --exec` as a process that notes what it was told."""

    def __init__(self, rig: WallRig, folder: Path) -> None:
        self._notes, self._folder = folder / "notes", folder
        self._notes.touch()
        (folder / "keys.json").write_bytes(KEYS.to_json())
        script = folder / "note.py"
        script.write_text(
            "import json, os, sys\n"
            "said = json.loads(sys.stdin.read() or '{}')\n"
            "line = [os.environ[f'CORDON_{name}'] for name in ('DECISION', 'REASON', 'NUMBER')]\n"
            "line.append(said.get('id', '') if 'lease' not in said.get('type', '') else '')\n"
            f"open({str(self._notes)!r}, 'a').write(json.dumps(line) + chr(10))\n"
        )
        self._command = [
            *(sys.executable, "-m", "deploy.cli", "watch", "--url", rig.url, "--key", str(folder / "keys.json")),
            *("--from-start", "--state", str(folder / "state"), "--exec", f"{sys.executable} {script}"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=os.environ | {"CORDON_TOKEN": READER})

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def notes(self) -> list[tuple[str, str, str, str]]:
        return [tuple(json.loads(line)) for line in self._notes.read_text().splitlines()]

    def wait(self, condition: Callable[[list[tuple[str, str, str, str]]], bool]) -> None:
        eventually(lambda: condition(self.notes()), SECONDS_MAX)


def test_it_acts_on_events_and_leases_and_after_a_kill_goes_on_where_it_was(rig: WallRig, tmp_path: Path) -> None:
    watching = Watching(rig, tmp_path)
    try:
        watching.start()
        rig.say(verdict(DecisionWord.PROCEED, at_ms=rig.clock.now_ms()))
        watching.wait(lambda notes: ("proceed", "lease_valid", "") in [note[:3] for note in notes])
        rig.say(verdict(DecisionWord.HOLD, at_ms=rig.clock.now_ms()))
        watching.wait(lambda notes: notes[-1] == ("hold", "held", "1", f"{ROLLOUT}/1"))
        rig.say(verdict(DecisionWord.PROCEED, at_ms=rig.clock.now_ms()))
        watching.wait(lambda notes: ("proceed", "lease_valid", "2") in [note[:3] for note in notes])
        # The state is written once the command has ended; a lease or a heartbeat later at the latest.
        eventually(lambda: '"last_event_id":"0:2"' in (tmp_path / "state").read_text(), SECONDS_MAX)
        watching.kill()
        rig.say(verdict(DecisionWord.KILL, at_ms=rig.clock.now_ms()))
        watching.start()
        watching.wait(lambda notes: notes[-1] == ("kill", "killed", "3", f"{ROLLOUT}/3"))
        assert [note[2] for note in watching.notes() if note[2]] == ["1", "2", "3"]
    finally:
        watching.kill()


def test_a_server_that_is_gone_is_a_hold_when_the_lease_ends(rig: WallRig, tmp_path: Path) -> None:
    watching = Watching(rig, tmp_path)
    try:
        watching.start()
        rig.say(verdict(DecisionWord.PROCEED, at_ms=rig.clock.now_ms()))
        watching.wait(lambda notes: ("proceed", "lease_valid", "") in [note[:3] for note in notes])
        rig.close_streams()
        watching.wait(lambda notes: notes[-1][:2] == ("hold", "lease_expired"))
    finally:
        watching.kill()
