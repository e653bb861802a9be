"""`python -m deploy.kafka`: a broker in the foreground, to try the distributed way on one machine."""

import signal
import sys
import threading
from pathlib import Path

import click

from deploy.kafka.archive import make_archive
from deploy.kafka.broker import KafkaStartError, LocalKafka
from deploy.kafka.distribution import KafkaMissingError


@click.command()
@click.option("--port", default=9092, show_default=True, help="Port on 127.0.0.1; 0 for any free one.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/kafka-data"),
    show_default=True,
    help="Folder that the topics stay in.",
)
@click.option("--fetch", is_flag=True, help="Only fetch the broker and make it quick to start.")
def main(port: int, data: Path, fetch: bool) -> None:
    """Run an Apache Kafka broker on loopback until SIGTERM or Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        make_archive()
        if fetch:
            return
        with LocalKafka(data.absolute(), port=port) as kafka:
            click.echo(f"bootstrap {kafka.bootstrap}")
            sys.stdout.flush()
            while not ended.wait(1.0):
                kafka.nodes[0].require_running()
            kafka.stop()
    except (KafkaMissingError, KafkaStartError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
