"""Where the broker's jars are: fetched once by Maven into `build/kafka`, or found in `CORDON_KAFKA_HOME`.

The invariant: a folder of jars that `jars()` returns is whole. Maven writes into a folder of its own that is renamed
when it has ended well, under a lock, so that neither a fetch cut short nor two at once leave half a broker behind.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOME_VARIABLE = "CORDON_KAFKA_HOME"
JAVA_MAJOR_MIN = 17
FETCH_SECONDS_MAX = 900
_POM = Path(__file__).with_name("pom.xml")
_CHECKOUT = Path(__file__).resolve().parents[2]


class KafkaMissingError(Exception):
    """A local broker can't be had here; the message names what is missing and what to do."""


def lacking() -> str | None:
    """Return what this machine lacks to run a local broker, with what to do about it; None when nothing."""
    java = shutil.which("java")
    if java is None:
        return f"java {JAVA_MAJOR_MIN}+ is missing for a local Kafka broker: run `make deps-system`"
    major = _java_major(java)
    if major < JAVA_MAJOR_MIN:
        return f"java {JAVA_MAJOR_MIN}+ is missing for a local Kafka broker ({java} is {major}): run `make deps-system`"
    if _jars_folder().is_dir() or shutil.which("mvn") is not None:
        return None
    return f"mvn is missing to fetch a local Kafka broker: run `make deps-system`, or set {HOME_VARIABLE}"


def classpath() -> str:
    """Return the class path of the broker, fetching the jars where that was not done yet.

    Raises:
        KafkaMissingError: java or Maven is missing, or the jars can't be fetched.
    """
    missing = lacking()
    if missing is not None:
        raise KafkaMissingError(missing)
    return f"{jars()}/*"


def jars() -> Path:
    """Return the folder of the broker's jars, fetching them where that was not done yet.

    Raises:
        KafkaMissingError: they can't be fetched.
    """
    folder = _jars_folder()
    if folder.is_dir():
        return folder
    if os.environ.get(HOME_VARIABLE):
        raise KafkaMissingError(f"{HOME_VARIABLE} has no folder `libs`: point it at an unpacked Apache Kafka 4")
    with locked("fetch.lock"):
        # Another process may have fetched them while this one waited for the lock.
        if not folder.is_dir():
            _fetch(folder)
    return folder


def cache_folder() -> Path:
    """Return the folder of what was fetched or made for local brokers; it may not exist yet."""
    return _CHECKOUT / "build" / "kafka"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other processes out of what they would do under the same lock."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _jars_folder() -> Path:
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home) / "libs"
    # Named after what was asked for: a new version in the pom is another folder.
    return cache_folder() / f"jars-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"


def _fetch(folder: Path) -> None:
    for stale in folder.parent.glob("fetching-*"):
        shutil.rmtree(stale, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix="fetching-", dir=folder.parent))
    shutil.copy(_POM, part / "pom.xml")
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            command, cwd=part, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise KafkaMissingError(
            f"Maven did not fetch Kafka within {FETCH_SECONDS_MAX} s: check the network and try again"
        ) from error
    if done.returncode != 0 or not any((part / "jars").glob("kafka_*.jar")):
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise KafkaMissingError(f"Maven could not fetch Kafka: check the network and ~/.m2/settings.xml. {said}")
    (part / "jars").rename(folder)
    shutil.rmtree(part, ignore_errors=True)


def _java_major(java: str) -> int:
    said = subprocess.run(  # noqa: S603  # what `which` found
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    )
    found = re.search(r'version "(\d+)', said.stderr)
    return int(found.group(1)) if found else 0
