"""The `cordon` command: one click group, each command in a file of its own, imported only when it is asked for."""

import importlib
from typing import cast

import click

from deploy.serving.logs import configure

# Command to module and attribute: starting `cordon watch` must not import ClickHouse.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("deploy.cli.up", "up"),
    "gateway": ("deploy.cli.gateway", "gateway"),
    "worker": ("deploy.cli.worker", "worker"),
    "signals": ("deploy.cli.signals", "signals"),
    "demo": ("deploy.cli.demo", "demo"),
    "demo-lease": ("deploy.cli.demo_lease", "demo_lease"),
    "drill": ("deploy.cli.drill", "drill"),
    "replay": ("deploy.cli.replay", "replay"),
    "reprocess": ("deploy.cli.reprocess", "reprocess"),
    "report": ("deploy.cli.report", "report"),
    "backtest": ("deploy.cli.backtest", "backtest"),
    "compat": ("deploy.cli.compat", "compat"),
    "patterns": ("deploy.cli.patterns", "patterns"),
    "soak": ("deploy.cli.soak", "soak"),
    "plan": ("deploy.cli.plan", "plan"),
    "policy": ("deploy.cli.policy", "policy"),
    "query": ("deploy.cli.query", "query"),
    "dashboards": ("deploy.cli.dashboards", "dashboards"),
    "migrate": ("deploy.cli.migrate", "migrate"),
    "topics": ("deploy.cli.topics", "topics"),
    "token": ("deploy.cli.token", "token"),
    "settings": ("deploy.cli.settings", "settings"),
    "routes": ("deploy.cli.routes", "routes"),
    "pagers": ("deploy.cli.pagers", "pagers"),
    "webhooks": ("deploy.cli.webhooks", "webhooks"),
    "watch": ("deploy.cli.watch", "watch"),
    "verify": ("deploy.cli.switch", "verify"),
    "keys": ("deploy.cli.keys", "keys"),
    "hold": ("deploy.cli.people", "hold"),
    "kill": ("deploy.cli.people", "kill"),
    "release": ("deploy.cli.people", "release"),
    "approvals": ("deploy.cli.people", "approvals"),
    "approve": ("deploy.cli.people", "approve"),
    "mute": ("deploy.cli.people", "mute"),
    "dry-run": ("deploy.cli.people", "dry_run"),
    "arm": ("deploy.cli.people", "arm"),
    "audit": ("deploy.cli.audit", "audit"),
    "incident": ("deploy.cli.incident", "incident"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click names the parameter
        """Return the command names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        """Import and return one command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        return cast(click.Command, command)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cordon")
@click.option("--verbose", is_flag=True, help="Log what the parts do, and what the libraries say.")
def main(verbose: bool) -> None:
    """Stop a bad driver or content update before it reaches the fleet."""
    configure(verbose)
