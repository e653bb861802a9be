"""`python -m deploy.docs`: write the generated pages, or with `--check` say which of them are stale."""

import argparse
import sys
from pathlib import Path

from deploy.docs.pages import pages, stale, write

FOLDER = Path(__file__).parents[2] / "docs"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 1 when `--check` finds a stale page."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docs", description="Write the generated documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the pages that are stale")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages lie (default: docs/)")
    given = parser.parse_args(arguments)
    made = pages()
    found = stale(given.folder, made)
    if not given.check:
        write(given.folder, made)
        print(f"{len(made)} pages in {given.folder}, {len(found)} of them changed")
        return 0
    for name in found:
        print(f"stale: {given.folder / name}; run `make docs`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
