"""`cordon incident`: one rollout's story as a file that needs nothing else.

Thin over `dashboards.incident`: it says who is asked (a running Cordon's read-only endpoint and streams listener, or
the ClickHouse of the settings) and where the file goes. Invariant: a file is written whole or not at all.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from dashboards.incident.gather import gathered
from dashboards.incident.page import page
from dashboards.incident.source import Ask, IncidentError, StoreSource
from deploy.cli.audit import HttpTrail
from deploy.cli.options import config_option, settings_of
from deploy.cli.query import ask, ask_clickhouse
from deploy.cli.streams import DEFAULT_URL, key_option, keys_of, read_keys, token_of, token_option
from detectors.policy import PolicyError, load
from ingest.settings import Settings
from ingest.store.interface import database_of
from ingest.store.parameters import parameter_text
from ingest.topics import keyed_partition_of
from signals.client import PublicKeys


def store_ask(settings: Settings, lane: str, query_url: str = "") -> Ask:
    """Return what carries SQL to the store of a lane.

    Args:
        settings: name the ClickHouse, or the port of the running Cordon.
        lane: whose database.
        query_url: of the read-only endpoint; that of `query_port` if not given.
    """
    database = database_of(lane)
    if settings.clickhouse_host and not query_url:
        return lambda sql, form, values: ask_clickhouse(settings, sql, form, values, database)
    url = query_url or f"http://127.0.0.1:{settings.query_port}/"

    def over_http(sql: str, form: str, values: dict[str, str]) -> bytes:
        # ClickHouse reads a parameter as it reads a field of a tab-separated file.
        return ask(url, sql, form, {name: parameter_text(value) for name, value in values.items()}, database)

    return over_http


def http_trail(url: str, token: str | None) -> Callable[[str], Iterable[bytes]]:
    """Return what reads a rollout's partition of the audit trail from a running Cordon."""

    def entries(rollout: str) -> Iterable[bytes]:
        trail = HttpTrail(url, token)
        return trail.entries(keyed_partition_of(rollout, trail.partitions))

    return entries


def write_report(
    out: Path,
    rollout: str,
    lane: str,
    keys: PublicKeys,
    source: StoreSource,
    policy_files: Iterable[Path | None] = (None,),
) -> None:
    """Write a rollout's report.

    Args:
        out: the file; one that is there is replaced.
        rollout: its id.
        lane: of the installation.
        keys: that decisions have to be signed with.
        source: who is asked.
        policy_files: where the policy that decided may lie; None is the built-in one.

    Raises:
        IncidentError: the rollout is not known, or an answer can't be read.
        PolicyError: a policy can't be read.
        OSError: the file can't be written.
    """
    policies = [load(path) for path in policy_files]
    text = page(gathered(source, rollout, lane, keys, policies))
    out.parent.mkdir(parents=True, exist_ok=True)
    partly = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partly.write_text(text, encoding="utf-8")
        partly.replace(out)
    finally:
        partly.unlink(missing_ok=True)


@click.command()
@click.argument("rollout")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The HTML file to write."
)  # fmt: skip
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Address of Cordon's streams listener.")
@click.option("--store-only", is_flag=True, help="Do without the streams listener: no audit trail; needs --key.")
@click.option("--lane", default=None, help="Lane of the rollout; the one in the settings where not given.")
@token_option
@key_option
@config_option
def incident(
    rollout: str,
    out: Path,
    url: str,
    store_only: bool,
    lane: str | None,
    token_file: Path | None,
    key_file: Path | None,
    config: Path | None,
) -> None:
    """Write one rollout's incident report: a single HTML file, to read, send and print.

    Asks the running Cordon on this machine, or the ClickHouse of the settings, and the streams listener for the audit
    trail. Decisions are believed only if their signatures verify with the keys of --key, or else with those that the
    listener publishes itself.
    """
    settings = settings_of(config)
    if store_only and key_file is None:
        raise click.UsageError("--store-only needs --key: without the listener nobody else says which keys to believe")
    keys = read_keys(key_file) if store_only and key_file else keys_of(url, key_file)
    chosen = lane or settings.lane
    trail = None if store_only else http_trail(url, token_of(token_file))
    policy_files = [Path(settings.policy_file), None] if settings.policy_file else [None]
    try:
        write_report(out, rollout, chosen, keys, StoreSource(store_ask(settings, chosen), trail), policy_files)
    except (IncidentError, PolicyError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error
    click.echo(out)
