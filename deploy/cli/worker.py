"""`cordon worker`: grouping, detection and the store's sink by themselves, on Kafka."""

from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from deploy.cli.process import data_option, lane_option, leashed_option, run_process


@click.command()
@click.option("--roles", default="", help="Of grouping,detection,sink; all if not given (sink only with a store).")
@click.option("--name", default=None, help="This worker's name; the one in the settings where not given.")
@click.option("--store/--no-store", default=None, help="Keep raw crashes and aggregates in ClickHouse.")
@data_option
@lane_option
@leashed_option
@config_option
def worker(
    roles: str,
    name: str | None,
    store: bool | None,
    data: str | None,
    lane: str | None,
    leashed_to: int | None,
    config: Path | None,
) -> None:
    """Do a share of the work behind Kafka, until SIGTERM or Ctrl-C; start as many as are needed."""
    settings = settings_of(config, data_dir=data, lane=lane, store=store, worker_name=name)
    from deploy.distributed.worker import WorkerProcess, roles_of

    run_process(lambda: WorkerProcess(settings, roles_of(roles, settings)), leashed_to)
