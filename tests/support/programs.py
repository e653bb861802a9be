"""Programs of others that tests need: a test skips visibly where one is missing, and fails where CI=true."""

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test for want of `what`; with CI=true fail it, since there it has to be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {what} is missing: `make deps-system` installs it", pytrace=False)
    pytest.skip(f"{what} is missing (`make deps-system` installs it)")


def program(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    for name in names:
        if (found := shutil.which(name)) is not None:
            return found
    lacking(names[0])
