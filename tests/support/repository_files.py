"""The files that the repository checks read: what is written by hand, nothing that a run leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("ingest", "detectors", "signals", "dashboards", "deploy")

# By name rather than by `git ls-files`: a source archive has no git, and a new file counts before it is committed.
_LEFT_BEHIND = frozenset({"build", "dist", "data", "__pycache__", "node_modules"})
_TEXT_SUFFIXES = frozenset(
    {
        "",
        ".cfg",
        ".css",
        ".html",
        ".ini",
        ".js",
        ".json",
        ".lock",
        ".md",
        ".py",
        ".sh",
        ".sql",
        ".toml",
        ".txt",
        ".yaml",
        ".yml",
    }
)


def text_files() -> Iterator[Path]:
    """Yield every hand-written text file of the checkout."""
    for folder, names, files in os.walk(REPOSITORY):
        at_top = Path(folder) == REPOSITORY
        names[:] = sorted(
            name
            for name in names
            if name not in (_LEFT_BEHIND if at_top else {"__pycache__"})
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name in {".ci", ".github"})
        )
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix in _TEXT_SUFFIXES and path.is_file():
                yield path


def python_files() -> list[Path]:
    """Return every Python file of the checkout."""
    return [path for path in text_files() if path.suffix == ".py"]


def named(path: Path) -> str:
    """Return a path as a finding shows it: relative to the root of the checkout."""
    return path.relative_to(REPOSITORY).as_posix()
