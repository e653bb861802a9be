"""Every package can be installed and explains itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.repository_files import PACKAGES, REPOSITORY, named, python_files


def package_folders() -> list[Path]:
    """Return every folder below a top-level package that holds Python files."""
    return sorted({path.parent for path in python_files() if path.relative_to(REPOSITORY).parts[0] in PACKAGES})


@pytest.mark.parametrize("package", PACKAGES)
def test_a_top_level_package_has_a_readme(package: str) -> None:
    """Its README holds its part of the flow, its guarantees and its decisions."""
    readme = REPOSITORY / package / "README.md"
    assert readme.is_file(), f"{package} lacks README.md"
    assert readme.read_text(encoding="utf-8").startswith("# ")


def test_every_inner_package_is_explained() -> None:
    """A package inside another has a README of its own, or its parent's names it."""
    unexplained = []
    for folder in package_folders():
        if folder.parent == REPOSITORY or (folder / "README.md").is_file():
            continue
        parent = folder.parent / "README.md"
        if not parent.is_file() or not re.search(rf"\b{folder.name}\b", parent.read_text(encoding="utf-8")):
            unexplained.append(named(folder))
    assert not unexplained, "\n".join(unexplained)


def test_every_folder_of_python_is_a_package() -> None:
    """Without __init__.py a folder is left out of the layers that import-linter checks."""
    lacking = [named(folder) for folder in package_folders() if not (folder / "__init__.py").is_file()]
    assert not lacking, "\n".join(lacking)


def test_tests_are_no_package() -> None:
    """With importlib mode an __init__.py under tests/ would shadow the package that it mirrors."""
    assert [named(path) for path in (REPOSITORY / "tests").rglob("__init__.py")] == []
