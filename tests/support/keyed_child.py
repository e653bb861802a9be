"""A worker process with detection and signals, for tests that kill it: `python keyed_child.py SETTINGS_JSON STAGE...`.

Says `ready` once it is a member of its groups, and runs until it is killed.
"""

import sys
import time

import msgspec

from ingest.clock import WallClock
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.keyed import KeyedWorker, wait_for


def main(text: str, stages: list[str]) -> None:
    settings = msgspec.json.decode(text, type=Settings)
    topics = Topics(settings.lane, settings.device_partitions, settings.keyed_partitions)
    connection = connection_of(settings)
    log = KafkaLog(
        connection, topic_specs(topics), WallClock(), Metrics(), lane=topics.lane, client=settings.worker_name
    )
    with KeyedWorker(settings, topics, log, stages) as worker:
        wait_for(lambda: all(worker.metrics.value("owned_partitions", stage=stage) for stage in stages), "shares")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
