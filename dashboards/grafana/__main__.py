"""`make dashboards`: write the boards' JSON again."""

import sys

from dashboards.grafana.build import BOARDS, folder, write

if __name__ == "__main__":
    changed = write(folder())
    sys.stdout.write(f"{len(BOARDS)} boards in {folder()}, {len(changed)} files changed\n")
