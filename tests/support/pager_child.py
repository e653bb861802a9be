"""A process that pages from an embedded log until it is killed: python pager_child.py FOLDER. It says when it is up."""

import sys
import threading
from pathlib import Path

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.pagers.outbox import OutboxSettings
from signals.pagers.registry_book import RegistryBook
from signals.pagers.service import PagerParts, PagerService
from support.switches import KEYS


def main(folder: Path) -> None:
    topics, clock, metrics = Topics(), WallClock(), Metrics()
    parts = PagerParts(
        log=EmbeddedLog(folder / "log", topic_specs(topics), clock),
        topics=topics,
        trusted=KEYS,
        book=RegistryBook(folder / "routes.toml", metrics),
        clock=clock,
        metrics=metrics,
        settings=OutboxSettings(),
    )
    PagerService(parts, 0).start()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
