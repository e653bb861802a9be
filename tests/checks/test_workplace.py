"""The repository names nothing of the machine or the workplace that it was written on."""

from __future__ import annotations

import re

import pytest

from support.repository_files import named, text_files

# Alternatives stand in groups, so that the pattern does not match its own source.
WORKPLACE = re.compile(r"/(?:work|farm)/|\bfarm-(?:bench|studio)\b")


def test_no_file_names_this_workplace() -> None:
    """Absolute paths of one machine and names of its tools mean nothing to anybody else."""
    found = [
        f"{named(path)}:{number} {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if WORKPLACE.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("parts", [("cd ", "work", "main"), ("", "farm", "bin")])
def test_the_pattern_finds_an_absolute_path(parts: tuple[str, str, str]) -> None:
    """The check sees what it is for."""
    before, folder, after = parts
    assert WORKPLACE.search(f"{before}/{folder}/{after}")


@pytest.mark.parametrize("innocent", ["/network/", "homework/solution", "the farm animals", "/homepage/"])
def test_the_pattern_leaves_ordinary_words_alone(innocent: str) -> None:
    """A word that merely contains one of the names is no finding."""
    assert not WORKPLACE.search(innocent)
