"""Makefile, README, CHANGELOG, locks and set-up agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import pytest

from support.repository_files import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

TARGETS = re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE)
REQUIREMENT_NAME = re.compile(r"[A-Za-z0-9._-]+")


def locked_names(lock: str) -> set[str]:
    """Return the distributions that a lock pins."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    """Return the normalised distribution names of requirement lines."""
    found = {match.group() for line in requirements if (match := REQUIREMENT_NAME.match(line))}
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_listed_by_help_and_is_phony(target: str) -> None:
    """`make help` shows one line for each target, and no file of that name can switch it off."""
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE), f"{target} lacks its `## help` line"
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert target in phony.group(1).split()


def test_make_alone_lists_every_target() -> None:
    """The default target is the list."""
    # A MAKEFLAGS handed down by `make test` would add its own lines.
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    }
    listed = subprocess.run(
        ["make"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert sorted(re.findall(r"^  make ([a-z-]+) ", listed, re.MULTILINE)) == sorted(TARGETS)


def test_the_readme_names_the_two_commands_and_no_target_that_is_not_there() -> None:
    """A new user types what the README says."""
    # Only what is set as code: "make sure" in a sentence is no command.
    said = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= said
    assert said <= set(TARGETS)


def test_the_changelog_has_a_section_for_the_work_at_hand() -> None:
    """Unreleased, or the version that pyproject.toml declares."""
    sections = re.findall(r"^## \[([^\]]+)\]", CHANGELOG, re.MULTILINE)
    assert {"Unreleased", PROJECT["version"]} & set(sections), sections


def test_the_locks_hold_what_the_project_declares() -> None:
    """A dependency added to pyproject.toml without `make lock` would be missing on a fresh checkout."""
    run, develop = names(PROJECT["dependencies"]), names(PROJECT["optional-dependencies"]["dev"])
    assert run - locked_names("requirements.lock") == set()
    assert (run | develop) - locked_names("requirements-dev.lock") == set()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_names_no_host_and_hashes_everything(lock: str) -> None:
    """A lock is good behind any index, and pip takes nothing that is not what was locked."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    assert re.findall(r"\w+://|--(?:extra-)?index-url|--find-links|--trusted-host", text) == []
    pins = re.findall(r"^[a-z0-9-]+==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)) > 0


@pytest.mark.parametrize("script", ["deploy/setup/venv.sh", "deploy/setup/find-python.sh", ".ci/run"])
def test_a_script_can_be_run_and_parses(script: str) -> None:
    """Set-up is the first thing that a new user meets."""
    path = REPOSITORY / script
    assert os.access(path, os.X_OK), f"{script} is not executable"
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)


def test_a_python_that_is_too_old_is_refused_with_what_to_do() -> None:
    """PYTHON=... that is no Python 3.11 fails at once instead of half-way through the installation."""
    answer = subprocess.run(
        ["deploy/setup/find-python.sh"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHON": "false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert answer.returncode == 1
    assert "3.11" in answer.stderr
