"""The undisturbed run of the incident that every faulty one is held to: one for all tests here."""

import pytest

from support.incident import Undisturbed, undisturbed_run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run the incident through the embedded Cordon."""
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed"))
