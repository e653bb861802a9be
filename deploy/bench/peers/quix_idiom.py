"""Counting reports the way quixstreams' documentation does: a dataframe, a tumbling window, `count()`.

Windows are emitted when they close, which costs less than a message for every update; state is RocksDB with a
changelog, as by default.
"""

import sys
import time
from collections import Counter
from importlib.metadata import version
from typing import Any

from quixstreams import Application

from deploy.bench.peers import CLOSING, PARTITIONS, WINDOW_SECONDS, tell


class Progress:
    """Notes when the first report was consumed and the last one counted, and ends when all windows were closed."""

    def __init__(self, records: int) -> None:
        """Expect `records` reports, and a closing record in each partition."""
        self.app: Application | None = None
        self.seconds = 0.0
        self._records = records
        self._seen = 0
        self._closed = 0
        self._began = 0.0

    def first(self, report: dict[str, Any]) -> None:
        """Take a report on its way into the window."""
        if report["kind"] == CLOSING:
            self._closed += 1
            return
        if not self._seen:
            self._began = time.perf_counter()
        self._seen += 1

    def processed(self, _topic: str, _partition: int, _offset: int) -> None:
        """Take that a record was dealt with."""
        if self._seen == self._records and not self.seconds:
            self.seconds = time.perf_counter() - self._began
        if self.seconds and self._closed == PARTITIONS and self.app is not None:
            self.app.stop()


def main(broker: str, topic: str, records: int, data: str) -> None:
    """Run the application."""
    progress = Progress(records)
    counts: Counter[tuple[str, int]] = Counter()
    app = progress.app = Application(
        broker_address=broker,
        consumer_group=f"quix-{topic}",
        auto_offset_reset="earliest",
        state_dir=data,
        loglevel="WARNING",
        on_message_processed=progress.processed,
    )

    def take(window: dict[str, Any], key: Any, _timestamp: int, _headers: Any) -> None:
        name = key.decode() if isinstance(key, bytes) else str(key)
        if not name.startswith(CLOSING):
            counts[name, window["start"]] += window["value"]

    frame = app.dataframe(app.topic(topic, value_deserializer="json"))
    frame = frame.update(progress.first)
    frame = frame.tumbling_window(WINDOW_SECONDS * 1000).count().final(closing_strategy="partition")
    frame.update(take, metadata=True)
    app.run()
    tell(version("quixstreams"), progress.seconds, counts)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
