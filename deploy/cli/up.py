"""`cordon up`: start Cordon to stay, in one process, or on Kafka as a few of them."""

import logging
from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from deploy.cli.process import WrongConfigurationError, data_option, lane_option, run_process, show_first_tokens
from ingest.log.interface import LogError
from ingest.settings import Settings, SettingsError
from ingest.store.interface import StoreError


@click.command()
@data_option
@lane_option
@click.option("--store/--no-store", default=None, help="Keep raw crashes and aggregates in ClickHouse (chdb).")
@click.option("--distributed", is_flag=True, help="Gateway, workers and signals as processes of their own, on Kafka.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Workers, with --distributed."
)
@config_option
def up(
    data: str | None, lane: str | None, store: bool | None, distributed: bool, workers: int, config: Path | None
) -> None:
    """Start Cordon and run until SIGTERM or Ctrl-C."""
    settings = settings_of(config, data_dir=data, lane=lane, store=store)
    if distributed:
        _distributed(settings, workers, config)
        return
    if settings.kafka_bootstrap:
        raise WrongConfigurationError(
            "kafka_bootstrap is set, and `cordon up` in one process uses no Kafka: say --distributed, or unset it"
        )
    from deploy.embedded import Embedded

    show_first_tokens(settings.data_dir)
    run_process(lambda: Embedded(settings))


def _distributed(settings: Settings, workers: int, config: Path | None) -> None:
    """Check what every child would stumble over, create missing topics, and run the children."""
    from deploy.distributed.supervisor import SupervisionError, Supervisor, create_topics, migrate_store, plans_of
    from deploy.distributed.worker import roles_of
    from deploy.serving.configuration import ConfigurationError, topics_of

    if settings.drill_hour >= 0:
        raise WrongConfigurationError(
            "drill_hour is for `cordon up` in one process: with --distributed unset it, and run "
            "`cordon drill --every 24h` beside it"
        )
    try:
        roles = roles_of("", settings)
        created = create_topics(settings, topics_of(settings))
        migrated = migrate_store(settings) if "sink" in roles else 0
    except (ConfigurationError, SettingsError) as error:
        raise WrongConfigurationError(str(error)) from error
    except (LogError, StoreError) as error:
        raise click.ClickException(str(error)) from error
    if created:
        click.echo(f"topics   {created} created for lane {settings.lane}")
    if migrated:
        click.echo(f"store    {migrated} migrations applied")
    show_first_tokens(settings.data_dir)
    verbose = logging.getLogger().isEnabledFor(logging.INFO)
    try:
        run_process(lambda: Supervisor(plans_of(settings, workers, roles, config), verbose))
    except SupervisionError as error:
        raise click.ClickException(str(error)) from error
