"""`python -m deploy.kafka`: says where it listens, keeps its topics, and ends when it is told to."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from support.kafka import require_kafka


@contextmanager
def broker(data: Path, repository: Path) -> Iterator[str]:
    """Run the command and yield the address it prints; SIGTERM must end it with 0."""
    command = [sys.executable, "-m", "deploy.kafka", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, address = process.stdout.readline().split()
            assert word == "bootstrap"
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_topics_stay_from_one_run_to_the_next(tmp_path: Path, repository: Path) -> None:
    require_kafka()
    with broker(tmp_path, repository) as address:
        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.create_topics([NewTopic("kept", 3, 1)], wait_for_metadata=True)
        admin.close()
    with broker(tmp_path, repository) as address:
        admin = KafkaAdminClient(bootstrap_servers=address)
        admin.wait_for_topics(["kept"])
        (topic,) = admin.describe_topics(["kept"])
        admin.close()
    assert len(topic["partitions"]) == 3
