"""The child of `store_child` with its store over TCP: `python native_store_child.py LOG_FOLDER PORT POINT`."""

import sys
from pathlib import Path

from ingest.store.interface import Columns
from ingest.store.native import NativeStore
from ingest.store.server import Server
from support.store_child import Fuse, main


class FusedNativeStore(NativeStore):
    """A store over TCP that may kill its process round an insert."""

    fuse: Fuse

    def __init__(self, port: Path, database: str) -> None:
        """Take the port where the other child takes a folder."""
        super().__init__(Server("127.0.0.1", int(port.name)), database)

    def insert(self, table: str, columns: Columns) -> None:
        if table != "sink_blocks":
            self.fuse.at("before-insert")
        super().insert(table, columns)
        self.fuse.at("after-plan" if table == "sink_blocks" else "after-insert")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], FusedNativeStore)
