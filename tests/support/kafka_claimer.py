"""A process that claims a name on Kafka's log and appends under its fence until it is fenced; driven by a test.

Arguments: settings as JSON, the topic, the name to claim. Writes a line for each append, and `fenced` at the end.
"""

import sys
import time

import msgspec

from ingest.clock import WallClock
from ingest.log.interface import Entry, FencedError
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import TopicSpec
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    topic, name = sys.argv[2:]
    specs = (TopicSpec(topic, 1), TopicSpec(Topics(settings.lane).name("fences"), 1, compacted=True))
    log = KafkaLog(connection_of(settings), specs, WallClock(), Metrics(), lane=settings.lane, client="claimer")
    fence = log.claim(name)
    number = 0
    while True:
        try:
            log.append([Entry(topic, 0, None, b"child %d" % number)], fence)
        except FencedError:
            sys.stdout.write("fenced\n")
            break
        sys.stdout.write(f"child {number}\n")
        sys.stdout.flush()
        number += 1
        time.sleep(0.01)
    log.close()


main()
