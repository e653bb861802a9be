"""Run the test server: `python -m support.clickhouse --data FOLDER`, with `tests` on the path."""

import sys

from support.clickhouse.server import main

if __name__ == "__main__":
    main(sys.argv[1:])
