"""A grouping worker of the release before, as far as state is concerned: it reads and writes the older schema only.

It is this release's worker with the newest schema taken out of what it reads: whatever of it reaches such a worker ends
it with an error. That the release before really wrote and read these bytes is what the golden state proves.
"""

from ingest.grouping import snapshot
from support.grouping_worker import main

if __name__ == "__main__":
    snapshot.STATE_SCHEMAS_READ = frozenset({snapshot.STATE_SCHEMA - 1})
    main()
