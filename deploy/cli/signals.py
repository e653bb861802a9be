"""`cordon signals`: the kill switch, verdicts and event streams by themselves, on Kafka."""

from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from deploy.cli.process import data_option, lane_option, leashed_option, require_tokens, run_process


@click.command()
@click.option("--name", default=None, help="This process's name; the one in the settings where not given.")
@data_option
@lane_option
@leashed_option
@config_option
def signals(name: str | None, data: str | None, lane: str | None, leashed_to: int | None, config: Path | None) -> None:
    """Turn verdicts and commands into signed events, and serve them, until SIGTERM or Ctrl-C."""
    settings = settings_of(config, data_dir=data, lane=lane, worker_name=name)
    from deploy.distributed.signals import SignalsProcess

    require_tokens(settings.data_dir)
    run_process(lambda: SignalsProcess(settings), leashed_to)
