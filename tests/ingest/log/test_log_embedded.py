"""What only the embedded log promises: one owner process, a fixed partition count, bounded upkeep, a bounded tail."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.clock import DrivenClock
from ingest.log import retention, schema
from ingest.log.embedded import EmbeddedLog
from ingest.log.group_commit import GroupCommit, Unit
from ingest.log.heads import Tails
from ingest.log.interface import Entry, LogError, LogUnavailableError, Record, TopicPartition
from ingest.log.specs import TopicSpec, topic_specs
from ingest.log.transaction import Prepared, Transaction
from ingest.topics import TOPICS, Topics
from support import log_disk_full

EVENTS = TopicPartition("e", 0)
STATE = TopicPartition("s", 0)
SPECS = (TopicSpec("e", 2, retention_ms=1000), TopicSpec("s", 1, compacted=True))
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(1_721_275_140_000)


@pytest.fixture
def log(tmp_path: Path, clock: DrivenClock) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path, SPECS, clock)
    yield log
    log.close()


def test_a_second_owner_of_the_directory_is_refused(log: EmbeddedLog, tmp_path: Path, clock: DrivenClock) -> None:
    with pytest.raises(LogError, match=rf"process {os.getpid()}.*choose another --data"):
        EmbeddedLog(tmp_path, SPECS, clock)
    log.close()
    EmbeddedLog(tmp_path, SPECS, clock).close()


def test_a_second_process_is_refused(log: EmbeddedLog, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from ingest.clock import WallClock; from ingest.log.embedded import EmbeddedLog\n"
        "EmbeddedLog(Path(sys.argv[1]), (), WallClock())"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=False, capture_output=True, env=environment
    )
    assert child.returncode != 0
    assert b"another Cordon" in child.stderr


def test_the_partition_count_is_fixed(log: EmbeddedLog, tmp_path: Path, clock: DrivenClock) -> None:
    log.append([Entry("e", 1, None, b"a")])
    log.close()
    with pytest.raises(LogError, match=r"created with 2 partitions.*asked for with 3"):
        EmbeddedLog(tmp_path, [TopicSpec("e", 3)], clock)
    again = EmbeddedLog(tmp_path, [TopicSpec("e", 2), TopicSpec("new", 4)], clock)
    assert again.read(TopicPartition("e", 1), 0)[0].value == b"a"
    assert again.append([Entry("new", 3, None, b"b")]) == [0]
    again.close()


def test_a_file_of_another_layout_is_refused(log: EmbeddedLog, tmp_path: Path, clock: DrivenClock) -> None:
    log.close()
    connection = schema.connect(tmp_path / schema.FILE_NAME, writes=True)
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'layout'")
    connection.close()
    with pytest.raises(LogError, match="layout 99"):
        EmbeddedLog(tmp_path, SPECS, clock)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path, clock: DrivenClock) -> None:
    (tmp_path / schema.FILE_NAME).write_bytes(b"not a database" * 1000)
    with pytest.raises(LogUnavailableError, match="not a database"):
        EmbeddedLog(tmp_path, SPECS, clock)


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path, clock: DrivenClock) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogUnavailableError, match="choose another --data"):
        EmbeddedLog(tmp_path / "file" / "log", SPECS, clock)


@pytest.mark.fault
def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    command = [sys.executable, str(Path(log_disk_full.__file__)), str(tmp_path / "log")]
    child = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert child.returncode == 0, child.stderr.decode()
    assert int(child.stdout.split()[1]) > 0


def test_a_damaged_record_is_an_error_not_a_value(log: EmbeddedLog, tmp_path: Path, clock: DrivenClock) -> None:
    log.append([Entry("e", 0, None, b"compressible " * 1000)])
    log.close()
    connection = schema.connect(tmp_path / schema.FILE_NAME, writes=True)
    connection.execute("UPDATE records SET value = substr(value, 1, length(value) - 4)")
    connection.close()
    again = EmbeddedLog(tmp_path, SPECS, clock)
    with pytest.raises(LogError, match="damaged"):
        again.read(EVENTS, 0)
    again.close()


def test_upkeep_with_nothing_due_writes_nothing(log: EmbeddedLog, tmp_path: Path) -> None:
    log.append([Entry("e", 0, None, b"a"), Entry("s", 0, b"k", b"v")])
    wal = tmp_path / f"{schema.FILE_NAME}-wal"
    size = wal.stat().st_size
    assert log.maintain() == 0
    assert wal.stat().st_size == size


def test_an_append_waits_for_one_upkeep_step_at_most(log: EmbeddedLog, clock: DrivenClock) -> None:
    generator = random.Random(3)
    for _ in range(24):
        log.append([Entry("e", 0, None, generator.randbytes(1 << 20))])
    clock.drive_to(clock.now_ms() + 2000)
    steps: list[int] = []
    upkeep = threading.Thread(target=lambda: steps.append(log.maintain()))
    upkeep.start()
    between = 0
    while upkeep.is_alive():
        log.append([Entry("e", 1, None, b"tick")])
        between += upkeep.is_alive()
    upkeep.join()
    assert steps == [24 << 20 >> 22], "one step for each STEP_BYTES_MAX"
    assert between >= 2, "appends went in between the steps"
    assert log.bounds(EVENTS) == (24, 24)


def test_the_file_shrinks_after_a_flood(
    log: EmbeddedLog, tmp_path: Path, clock: DrivenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FREE_BYTES_KEPT", 1 << 20)
    generator = random.Random(3)
    for _ in range(12):
        log.append([Entry("e", 0, None, generator.randbytes(1 << 20))])
    clock.drive_to(clock.now_ms() + 2000)
    log.append([Entry("e", 0, None, b"kept")])
    log.maintain()
    assert log.read(EVENTS, 12)[0].value == b"kept"
    log.close()
    assert (tmp_path / schema.FILE_NAME).stat().st_size < 3 << 20


def test_superseded_state_does_not_grow_the_file(log: EmbeddedLog, tmp_path: Path) -> None:
    generator = random.Random(3)
    for turn in range(60):
        log.append([Entry("s", 0, b"chunk-%d" % (turn % 4), generator.randbytes(256 << 10))])
        log.maintain()
    assert len(log.read(STATE, 0)) == 4
    log.close()
    assert (tmp_path / schema.FILE_NAME).stat().st_size < 4 << 20


def test_the_size_on_disk_counts_what_is_not_checkpointed_yet(log: EmbeddedLog) -> None:
    before = log.disk_bytes()
    log.append([Entry("e", 0, None, random.Random(3).randbytes(1 << 20))])
    assert log.disk_bytes() >= before + (1 << 20)


def test_the_write_ahead_log_is_bounded(log: EmbeddedLog, tmp_path: Path) -> None:
    generator = random.Random(3)
    value = generator.randbytes(2 << 20)
    largest = 0
    for _ in range(60):
        log.append([Entry("e", 0, None, value)])
        largest = max(largest, (tmp_path / f"{schema.FILE_NAME}-wal").stat().st_size)
    # A checkpoint that a busy machine holds up lets it grow meanwhile; without any it would hold all 120 MiB.
    assert largest < schema.WAL_BYTES_MAX * 3 // 2


def test_readers_do_not_wait_for_a_writer(tmp_path: Path, clock: DrivenClock) -> None:
    log = EmbeddedLog(tmp_path, SPECS, clock, tail_bytes_max=0)
    log.append([Entry("e", 0, None, b"a")])
    entered, leave = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        assert leave.wait(20)

    holder = threading.Thread(target=lambda: log._commits.submit(hold))
    holder.start()
    entered.wait()
    started = time.monotonic()
    assert log.read(EVENTS, 0)[0].value == b"a"
    assert log.bounds(EVENTS) == (0, 1)
    assert time.monotonic() - started < 5
    leave.set()
    holder.join()
    log.close()


def test_an_interrupt_after_the_commit_leaves_no_wrong_bounds(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append([Entry("e", 0, None, b"a")])

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log, "_publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append([Entry("e", 0, None, b"durable, not acknowledged")])
    assert log.append([Entry("e", 0, None, b"b")]) == [2]
    assert [record.value for record in log.read(EVENTS, 0)] == [b"a", b"durable, not acknowledged", b"b"]


def test_a_unit_that_breaks_its_transaction_harms_nobody_else(log: EmbeddedLog) -> None:
    entered, leave = threading.Event(), threading.Event()
    outcomes: dict[str, object] = {}

    def hold(_: object) -> None:
        entered.set()
        assert leave.wait(20)

    def run(name: str, work: Callable[[Transaction], object]) -> None:
        try:
            outcomes[name] = log._commits.submit(work)
        except LogUnavailableError as error:
            outcomes[name] = str(error)

    def append(name: str) -> None:
        outcomes[name] = log.append([Entry("e", 0, None, name.encode())])

    def poison(transaction: Transaction) -> None:
        transaction.append([Prepared(EVENTS, None, b"x", 0, b"x")])
        transaction.connection.execute("INSERT INTO records SELECT * FROM records")

    threads = [
        threading.Thread(target=run, args=("hold", hold)),
        threading.Thread(target=append, args=("one",)),
        threading.Thread(target=run, args=("poison", poison)),
        threading.Thread(target=append, args=("two",)),
    ]
    threads[0].start()
    entered.wait()
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        while len(log._commits._queue) < count:
            time.sleep(0.001)
    leave.set()
    for thread in threads:
        thread.join()
    assert outcomes["one"] == [0]
    assert outcomes["two"] == [1]
    assert "cannot write the log" in str(outcomes["poison"])
    assert [record.value for record in log.read(EVENTS, 0)] == [b"one", b"two"]


def test_the_declared_topics_become_specs() -> None:
    specs = {spec.name: spec for spec in topic_specs(Topics(device_partitions=4), retention_bytes_max=4000)}
    assert len(specs) == len(TOPICS)
    crashes = specs["cordon.crashes.v1"]
    assert (crashes.partitions, crashes.compacted, crashes.retention_ms) == (4, False, 72 * 3_600_000)
    assert crashes.retention_bytes_max == 1000
    assert specs["cordon.fleet.v1"] == TopicSpec("cordon.fleet.v1", 4, compacted=True)
    assert specs["cordon.killswitch.v1"] == TopicSpec("cordon.killswitch.v1", 1), "kept for ever"
    assert topic_specs(Topics("replay-1"))[0].name == "cordon.replay-1.intake.v1"


@pytest.mark.parametrize(
    "specs",
    [[TopicSpec("a", 0)], [TopicSpec("a", 1), TopicSpec("a", 1)], [TopicSpec("a", 1, compacted=True, retention_ms=1)]],
)
def test_specs_that_make_no_sense_are_refused(specs: list[TopicSpec], tmp_path: Path, clock: DrivenClock) -> None:
    with pytest.raises(LogError):
        EmbeddedLog(tmp_path, specs, clock)


class TestTails:
    def test_keeps_the_newest_within_its_bytes(self) -> None:
        tails = Tails(bytes_max=10 * 1200)
        sources = [TopicPartition("t", partition) for partition in range(2)]
        for offset in range(100):
            for source in sources:
                tails.add(source, [Record(offset + 5, None, b"x" * 1000, 0)])
        for source in sources:
            assert tails.read(source, 99, 10, 1 << 20) is None
            got = tails.read(source, 100, 10, 1 << 20)
            assert got is not None
            assert [record.offset for record in got] == [100, 101, 102, 103, 104]
            assert tails.read(source, 105, 10, 1 << 20) == []
            assert len(tails._tails[source].records) <= 11


class TestGroupCommit:
    def test_those_who_queue_share_a_batch_and_the_failure_is_theirs_alone(self) -> None:
        batches: list[int] = []
        release = threading.Event()

        def execute(units: list[Unit[None]]) -> None:
            batches.append(len(units))
            if len(batches) == 1:
                assert release.wait(20)
            for unit in units:
                try:
                    unit.run(None)
                    unit.error = None
                except ValueError as error:
                    unit.error = error

        commits: GroupCommit[None] = GroupCommit(execute)  # type: ignore[arg-type]  # a list is the Sequence it gets
        answers: dict[int, object] = {}

        def submit(number: int) -> None:
            def work(_: None) -> int:
                if number == 3:
                    raise ValueError("mine")
                return number

            try:
                answers[number] = commits.submit(work)
            except ValueError as error:
                answers[number] = str(error)

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
        threads[0].start()
        while not batches:
            time.sleep(0.001)
        for thread in threads[1:]:
            thread.start()
        while len(commits._queue) < 5:
            time.sleep(0.001)
        release.set()
        for thread in threads:
            thread.join()
        assert batches == [1, 5]
        assert answers == {0: 0, 1: 1, 2: 2, 3: "mine", 4: 4, 5: 5}

    def test_an_interrupted_leader_does_not_pass_for_success(self) -> None:
        def execute(_: object) -> None:
            raise KeyboardInterrupt

        commits: GroupCommit[None] = GroupCommit(execute)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                commits.submit(lambda _: 1)
