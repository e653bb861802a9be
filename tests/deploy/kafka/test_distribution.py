"""The broker's jars are fetched once and whole, whatever interrupts it; what a machine lacks is named."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.kafka import archive, distribution
from deploy.kafka.distribution import KafkaMissingError
from support.kafka import require_kafka

# Stands in for Maven: counts its runs, takes a moment, and may fail half-way.
MAVEN = """#!/bin/sh
echo run >> "$RUNS"
mkdir -p jars
echo first > jars/kafka-clients-4.1.1.jar
sleep 0.3
if [ -e "$BREAK" ]; then echo "cannot resolve artifact" >&2; exit 1; fi
echo second > jars/kafka_2.13-4.1.1.jar
"""
JAVA = """#!/bin/sh
echo 'openjdk version "%s" 2025-04-15' >&2
"""
FETCHER = """
import pathlib, sys
from deploy.kafka import archive, distribution
distribution._CHECKOUT = pathlib.Path(sys.argv[1])
print(distribution.jars())
"""


class Machine:
    """A machine with only the commands that a test gives it, and an empty checkout."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.runs = folder / "runs"
        self.breaking = folder / "break"
        self.bin = folder / "bin"
        self.bin.mkdir()

    def has(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:/usr/bin:/bin", "RUNS": str(self.runs), "BREAK": str(self.breaking)}

    def fetches(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(distribution.HOME_VARIABLE, raising=False)
    monkeypatch.setattr(distribution, "_CHECKOUT", made.checkout)
    return made


def test_jars_are_fetched_once(machine: Machine) -> None:
    machine.has("mvn", MAVEN)
    folder = distribution.jars()
    assert {path.name for path in folder.iterdir()} == {"kafka-clients-4.1.1.jar", "kafka_2.13-4.1.1.jar"}
    assert distribution.jars() == folder
    assert machine.fetches() == 1


def test_a_fetch_that_fails_leaves_nothing_behind_and_is_done_again(machine: Machine) -> None:
    machine.has("mvn", MAVEN)
    machine.breaking.touch()
    with pytest.raises(KafkaMissingError, match="cannot resolve artifact"):
        distribution.jars()
    machine.breaking.unlink()
    assert (distribution.jars() / "kafka_2.13-4.1.1.jar").exists()
    # What the first try left was cleared away.
    assert list((machine.checkout / "build" / "kafka").glob("fetching-*")) == []


def test_processes_that_fetch_at_once_fetch_once(machine: Machine, repository: Path) -> None:
    machine.has("mvn", MAVEN)
    command = [sys.executable, "-c", FETCHER, str(machine.checkout)]
    fetching = [subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in fetching}
    assert {process.returncode for process in fetching} == {0}
    assert len(said) == 1
    assert machine.fetches() == 1


def test_an_unpacked_kafka_is_taken_as_it_is(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.has("java", JAVA % "21.0.1")
    monkeypatch.setenv(distribution.HOME_VARIABLE, str(tmp_path / "kafka"))
    with pytest.raises(KafkaMissingError, match="CORDON_KAFKA_HOME has no folder `libs`"):
        distribution.jars()
    (tmp_path / "kafka" / "libs").mkdir(parents=True)
    assert distribution.classpath() == f"{tmp_path}/kafka/libs/*"


@pytest.mark.parametrize(
    ("java", "maven", "said"),
    [
        (None, True, r"java 17\+ is missing"),
        ("11.0.2", True, r"java 17\+ is missing .*is 11"),
        ("1.8.0_392", True, r"java 17\+ is missing .*is 1\b"),
        ("17.0.15", False, "mvn is missing"),
        ("21.0.1", True, None),
    ],
)
def test_what_is_missing_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, java: str | None, maven: bool, said: str | None
) -> None:
    monkeypatch.setenv("PATH", str(machine.bin))
    for name in ("sh", "sleep"):
        (machine.bin / name).symlink_to(f"/bin/{name}")
    if java is not None:
        machine.has("java", JAVA % java)
    if maven:
        machine.has("mvn", MAVEN)
    lacking = distribution.lacking()
    if said is None:
        assert lacking is None
    else:
        with pytest.raises(KafkaMissingError, match=f"{said}.*make deps-system"):
            distribution.classpath()


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_tests_without_a_broker_skip_and_fail_under_ci(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: Callable[..., type[BaseException]]
) -> None:
    monkeypatch.setenv("PATH", str(machine.bin))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"java 17\+ is missing"):  # type: ignore[call-overload]
        require_kafka()


def test_every_start_uses_the_class_archive(tmp_path: Path) -> None:
    require_kafka()
    assert archive.archive_path().is_file()
    # `-Xshare:on` ends a Java that can't use its archive; otherwise it would go on without a word, and slowly.
    command = ["java", *archive.options(), "-Xshare:on", "-cp", distribution.classpath(), "kafka.tools.StorageTool"]
    done = subprocess.run([*command, "random-uuid"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stdout.strip())) == (0, 22), done.stderr
