"""Finds the one real triage dump the tests may read."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def triage_sample() -> Path:
    """Return the real x64 triage dump; skip without it, but fail where CI says that everything must run."""
    sample = Path(__file__).parents[4] / "shared" / "samples" / "triage_x64.dmp"
    if sample.is_file():
        return sample
    reason = "../shared/samples/triage_x64.dmp is missing: the real triage dump was not read"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
