"""`cordon topics`: create and check the lane's topics on the Kafka of the settings.

`diff` ends with 0 when everything is as it should be, 1 when something differs, 2 when it can't tell.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from kafka import KafkaAdminClient

from deploy.cli.options import config_option, settings_of
from ingest.log.interface import LogError
from ingest.log.kafka import topics as kafka_topics
from ingest.log.kafka.admin import admin_client
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.topics import Change, WantedTopic, wanted
from ingest.log.specs import topic_specs
from ingest.settings import SettingsError
from ingest.topics import Topics

ERROR_CODE = 2

lane_option = click.option(
    "--lane", default=None, help="Lane whose topics are meant; the one in the settings if absent."
)


@click.group()
def topics() -> None:
    """Create the lane's topics on Kafka, or show how they differ."""


@contextmanager
def _brokers(lane: str | None, config: Path | None) -> Iterator[tuple[KafkaAdminClient, list[WantedTopic]]]:
    try:
        settings = settings_of(config, lane=lane)
        connection = connection_of(settings)
        names = Topics(settings.lane, settings.device_partitions, settings.keyed_partitions)
        should_be = wanted(topic_specs(names), replication=connection.replication, min_isr=connection.min_isr)
        with admin_client(connection) as admin:
            yield admin, should_be
    except click.ClickException as error:
        error.exit_code = ERROR_CODE
        raise
    except (LogError, SettingsError, ValueError) as error:
        failure = click.ClickException(str(error))
        failure.exit_code = ERROR_CODE
        raise failure from error


def _show(changes: list[Change]) -> None:
    for change in changes:
        click.echo(f"{change.kind:8} {change.topic}: {change.text}")


@topics.command()
@lane_option
@config_option
def diff(lane: str | None, config: Path | None) -> None:
    """Show what `apply` would do; ends with 1 when that is anything."""
    with _brokers(lane, config) as (admin, should_be):
        changes = kafka_topics.differences(admin, should_be)
    _show(changes)
    if changes:
        sys.exit(1)
    click.echo(f"{len(should_be)} topics are as they should be")


@topics.command()
@lane_option
@config_option
def apply(lane: str | None, config: Path | None) -> None:
    """Create the topics that are missing and set the configurations that differ; never touches a partition count."""
    with _brokers(lane, config) as (admin, should_be):
        changes = kafka_topics.apply(admin, should_be)
    _show(changes)
    click.echo(f"{len(should_be)} topics, {len(changes)} changes")
