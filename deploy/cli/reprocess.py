"""`cordon reprocess`: grouping and detection once more over a span of the live log, in a lane of its own.

For a policy or a detector that was changed, or a verdict that somebody doubts. It reads the live lane's reports and
rollouts, and writes to its own lane only: no fence, commit or record of `live` is touched.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from deploy.cli.options import config_option, settings_of
from deploy.reprocess.run import Concluded, Reprocess
from deploy.serving.configuration import ConfigurationError, policies_of
from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Log, LogError
from ingest.log.specs import TopicSpec, topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings, SettingsError
from ingest.topics import LIVE_LANE, SOURCE_WORDS, Topics

_PROGRESS_MS = 3_600_000
_FILE = click.Path(path_type=Path, dir_okay=False)


def _moment(text: str) -> int:
    """Return a time as milliseconds since the epoch; without an offset it is UTC."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time: write it like 2024-07-19T04:00:00Z") from error
    return int((found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def _clock(at_ms: int | None) -> str:
    return "-" if at_ms is None else f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%SZ}"


def own_specs(topics: Topics) -> tuple[TopicSpec, ...]:
    """Return the specs of the topics that a reprocessing lane writes."""
    taken = {topics.name(word) for word in SOURCE_WORDS}
    return tuple(spec for spec in topic_specs(topics) if spec.name not in taken)


@contextmanager
def _opened(settings: Settings, topics: Topics) -> Iterator[Log]:
    """Open the installation's log, with the topics of both lanes; those of the run are made.

    Raises:
        LogError: it can't be opened, or the topics can't be made.
        SettingsError: Kafka's settings contradict each other.
    """
    live = topic_specs(Topics(LIVE_LANE, settings.device_partitions, settings.keyed_partitions))
    specs = (*live, *own_specs(topics))
    log = _kafka(settings, topics, specs) if settings.kafka_bootstrap else _embedded(settings, specs)
    try:
        yield log
    finally:
        log.close()


def _embedded(settings: Settings, specs: tuple[TopicSpec, ...]) -> Log:
    folder = Path(settings.data_dir) / "log"
    if not folder.is_dir():
        raise LogError(f"{folder} holds no log: name a data folder with --data, or Kafka with kafka_bootstrap")
    return EmbeddedLog(folder, specs, WallClock())


def _kafka(settings: Settings, topics: Topics, specs: tuple[TopicSpec, ...]) -> Log:
    # Imported here: an embedded log needs no Kafka client.
    from ingest.log.kafka import topics as kafka_topics
    from ingest.log.kafka.admin import admin_client
    from ingest.log.kafka.connection import connection_of
    from ingest.log.kafka.log import KafkaLog

    connection = connection_of(settings)
    wanted = kafka_topics.wanted(own_specs(topics), replication=connection.replication, min_isr=connection.min_isr)
    with admin_client(connection) as admin:
        kafka_topics.apply(admin, wanted)
    return KafkaLog(connection, specs, WallClock(), Metrics(), lane=topics.lane, client=f"reprocess-{topics.lane}")


def conclusions(found: dict[str, Concluded]) -> Table:
    """Return what a run found, a row for each rollout."""
    table = Table(title="verdicts")
    for heading in ("rollout", "update", "verdict", "decision", "held", "killed", "reason"):
        table.add_column(heading, overflow="fold")
    for one in found.values():
        verdict = one.verdict
        update = f"{verdict.vendor}/{verdict.product} {verdict.version}"
        words = verdict.verdict.value, verdict.decision.value
        table.add_row(verdict.rollout, update, *words, _clock(one.held_ms), _clock(one.killed_ms), verdict.sentence)
    return table


def _warn_of_the_middle(run: Reprocess) -> None:
    if not run.from_the_middle:
        return
    click.echo(
        f"{run.from_the_middle} partitions begin before the span. What they said is not known to this run: a device "
        f"counts from its first report on, crashes and lists of pushed devices from before are missing. "
        f"{len(run.watched_before)} rollouts that began before it are watched from its beginning."
    )


@click.command()
@click.option("--from", "from_", metavar="TIME", required=True, help="First moment, by the log's time of append; ISO.")
@click.option("--to", metavar="TIME", help="Moment to stop before; now where not given.")
@click.option("--lane", required=True, help="Name of the run: a lane that was not used before.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the verdicts here too."
)
@click.option("--data", default=None, help="Data folder of an embedded log; the one in the settings where not given.")
@config_option
def reprocess(
    from_: str, to: str | None, lane: str, json_file: Path | None, data: str | None, config: Path | None
) -> None:
    """Group and judge a span of the live log again in another lane; `live` is only read."""
    settings = settings_of(config, data_dir=data)
    from_ms, now_ms = _moment(from_), WallClock().now_ms()
    to_ms = now_ms if to is None else _moment(to)
    if lane == LIVE_LANE:
        raise click.UsageError("the lane must not be live: a run writes to a lane of its own")
    if not from_ms < to_ms <= now_ms:
        raise click.UsageError("--from must lie before --to, and --to not in the future")
    try:
        topics = Topics(lane, settings.device_partitions, settings.keyed_partitions, source_lane=LIVE_LANE)
        policies = policies_of(settings)
        with _opened(settings, topics) as log:
            span = {"from_ms": from_ms, "to_ms": to_ms}
            run = Reprocess(log, topics, settings, policies, WallClock(), Metrics(), **span)
            _warn_of_the_middle(run)
            run.run(_Progress())
    except (ValueError, ConfigurationError, SettingsError, LogError) as error:
        raise click.ClickException(str(error)) from error
    Console().print(conclusions(run.concluded))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(run.concluded), indent=2) + b"\n")


class _Progress:
    """Says, once an hour of event time, how far a run is."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, watermark_ms: int) -> None:
        if watermark_ms // _PROGRESS_MS > self._told:
            self._told = watermark_ms // _PROGRESS_MS
            click.echo(f"at {_clock(watermark_ms)}")
