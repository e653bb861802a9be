"""System tests drive the product from outside: what they import is held to that."""

import ast
from pathlib import Path

PRODUCT = {"ingest", "detectors", "signals", "dashboards", "deploy"}
# The gateway ticks into both device topics, so lateness of one, or of one gateway, can only be had in-process.
INSIDE = {"test_drained_spool.py", "test_late_activity.py", "test_silent_gateway.py", "system_late.py"}


def imports_of(path: Path) -> set[str]:
    """Return the top-level names that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_system_tests_import_none_of_the_product(repository: Path) -> None:
    """Neither the tests nor their helpers import a package of the product, but for the file that says why."""
    files = [*(repository / "tests" / "system").glob("*.py"), *(repository / "tests" / "support").glob("system*.py")]
    files += [*(repository / "tests" / "system" / "distributed").glob("test_*.py")]
    files += [repository / "tests" / "support" / "distributed.py"]
    assert len(files) > 8
    wrong = {path.name: imports_of(path) & PRODUCT for path in files if path.name not in INSIDE}
    assert not {name: names for name, names in wrong.items() if names}
