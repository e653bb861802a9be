"""`cordon settings`: every setting with its default, its environment name and what it means."""

import click

from ingest.settings import setting_docs


@click.command()
def settings() -> None:
    """List every setting."""
    for name, environment, default, doc in setting_docs():
        click.echo(f"{name} = {default!r}  ({environment})\n    {doc}")
