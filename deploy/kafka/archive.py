"""The broker's classes, loaded and checked once: a class-data archive beside the jars, which every later start maps.

A broker's start is mostly Java reading classes. Measured on two busy cores: 5 to 7 s without, 1.3 to 1.7 s with it, and
half the processor time. The archive is only ever a help: where it does not fit the Java that runs, Java ignores it.
"""

import functools
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.kafka.distribution import cache_folder, classpath, jars, locked


def options() -> list[str]:
    """Return what tells Java to use the archive; nothing where there is none yet."""
    path = archive_path()
    # The second keeps Java from warning on the broker's output when it can't use it.
    return [f"-XX:SharedArchiveFile={path}", "-Xlog:cds=off"] if path.is_file() else []


def archive_path() -> Path:
    """Return where the archive of these jars and this Java is kept."""
    named = f"{jars()} {_java()}".encode()
    return cache_folder() / f"classes-{hashlib.sha256(named).hexdigest()[:12]}.jsa"


def make_archive() -> None:
    """Write the archive unless it is there, by starting and stopping a broker once.

    Raises:
        KafkaMissingError: this machine lacks what a broker needs.
        KafkaStartError: the broker did not come up.
    """
    # The broker asks this module for its options.
    from deploy.kafka.broker import LocalKafka

    # Says what is missing, before anything is asked of it.
    classpath()
    path = archive_path()
    if path.is_file():
        return
    with locked("archive.lock"):
        if path.is_file():
            return
        aside = Path(tempfile.mkdtemp(prefix="archiving-", dir=path.parent))
        try:
            with LocalKafka(java_options=[f"-XX:ArchiveClassesAtExit={aside / 'classes.jsa'}"]) as kafka:
                # Java writes it when it ends by itself.
                kafka.stop()
            if (aside / "classes.jsa").is_file():
                (aside / "classes.jsa").replace(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@functools.cache
def _java() -> str:
    java = shutil.which("java") or "java"
    said = subprocess.run(  # noqa: S603  # what `which` found
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    )
    return f"{Path(java).resolve()} {said.stderr}"
