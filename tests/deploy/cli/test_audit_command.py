"""`cordon audit` on a data folder: a trail as it was written passes, one that was touched does not."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.cli.audit import audit
from detectors.verdict import DecisionWord
from ingest.clock import DrivenClock
from ingest.log import schema
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, TopicPartition
from ingest.log.specs import topic_specs
from ingest.topics import Topics
from signals.events import Action, audit_decoder
from signals.killswitch.keys import KeyFiles
from support.switches import KEYS, START_MS, SwitchRig, approval, command, verdict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data folder with the trail of a kill that two persons released."""
    rig = SwitchRig()
    rig.declare()
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    rig.ask(command(Action.HOLD, "c-1"), command(Action.RELEASE, "c-2"), approval("c-3", "c-2"))
    rig.settle()
    topics = Topics()
    log = EmbeddedLog(tmp_path / "log", topic_specs(topics), DrivenClock(START_MS))
    for word in ("killswitch", "switches", "audit"):
        source = TopicPartition(topics.name(word), 0)
        log.append([Entry(*source, record.key, record.value) for record in rig.records(source)])
    log.close()
    (tmp_path / "keys.json").write_bytes(KEYS.to_json())
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(audit, [str(argument) for argument in arguments])


def check(folder: Path) -> Result:
    return run("verify", "--data-dir", folder, "--key", folder / "keys.json")


def test_a_trail_as_it_was_written_passes(folder: Path) -> None:
    found = check(folder)
    assert (found.exit_code, "4 entries, 2 events" in found.stdout) == (0, True), found.stderr
    shown = run("show", "--data-dir", folder).stdout.splitlines()
    assert len(shown) == 4
    assert "approve by" in shown[-1]
    as_json = run("show", "--data-dir", folder, "--json").stdout.splitlines()
    assert [audit_decoder.decode(line).number for line in as_json] == [1, 2, 3, 4]


def test_a_folder_without_a_log_or_without_keys_is_said_so(tmp_path: Path, folder: Path) -> None:
    assert "holds no log" in check_without(tmp_path / "none").stderr
    assert check_without(folder).exit_code == 1
    KeyFiles(folder).signer()
    strangers = check_without(folder)
    assert (strangers.exit_code, "can't be believed" in strangers.stderr) == (1, True)


def check_without(folder: Path) -> Result:
    return run("verify", "--data-dir", folder)


def touch(folder: Path, statement: str, offset: int, value: bytes | None = None) -> None:
    """Change one record of the audit trail where the log keeps it."""
    with contextlib.closing(sqlite3.connect(folder / "log" / schema.FILE_NAME)) as database, database:
        [(number,)] = database.execute("SELECT id FROM partitions WHERE topic = ?", (Topics().name("audit"),))
        parameters = {"id": schema.row_id(number, offset), "number": number, "value": value}
        assert database.execute(statement, parameters).rowcount == 1


def flipped(folder: Path, offset: int, at: int) -> bytes:
    """Return an entry with one bit of one byte flipped."""
    data = run("show", "--data-dir", folder, "--json").stdout_bytes.splitlines()[offset]
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(("offset", "says"), [(0, "entry 1 or entry 2"), (2, "entry 3 or entry 4"), (3, "entry 4")])
def test_one_byte_that_is_flipped_is_found_and_the_entry_named(folder: Path, offset: int, says: str) -> None:
    at = run("show", "--data-dir", folder, "--json").stdout.splitlines()[offset].index('"sentence":"') + 15
    touch(folder, "UPDATE records SET value = :value, codec = 0 WHERE id = :id", offset, flipped(folder, offset, at))
    found = check(folder)
    assert (found.exit_code, says in found.stderr) == (1, True), found.output


def test_an_entry_that_was_taken_out_is_named(folder: Path) -> None:
    touch(folder, "DELETE FROM records WHERE id = :id", 1)
    found = check(folder)
    assert (found.exit_code, "entry 2 is missing before entry 3" in found.stderr) == (1, True), found.output


def test_a_trail_that_was_cut_off_is_found_by_the_place_record(folder: Path) -> None:
    """The last entry and its event are gone, so that what is left fits together: only the stage's place knows more."""
    touch(folder, "DELETE FROM records WHERE id = :id", 3)
    found = check(folder)
    assert (found.exit_code, "entry 4 is missing at the end of the trail" in found.stderr) == (1, True), found.output
