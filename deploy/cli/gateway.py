"""`cordon gateway`: the gateway by itself, on Kafka."""

from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from deploy.cli.process import data_option, lane_option, leashed_option, run_process, show_first_tokens


@click.command()
@data_option
@lane_option
@leashed_option
@config_option
def gateway(data: str | None, lane: str | None, leashed_to: int | None, config: Path | None) -> None:
    """Take reports and write them to Kafka, until SIGTERM or Ctrl-C."""
    settings = settings_of(config, data_dir=data, lane=lane)
    from deploy.distributed.gateway import GatewayProcess

    show_first_tokens(settings.data_dir)
    run_process(lambda: GatewayProcess(settings), leashed_to)
