"""`cordon query`: SQL on the running Cordon's store, read-only.

Embedded data has one owner process, so this command never opens the store: it asks `cordon up` over HTTP on loopback.
Where `clickhouse_host` is set it asks that server over the native protocol, with `readonly` set. The invariant: an
answer is printed whole or not at all, and an error goes to standard error with exit code 1.
"""

import os
import sys
from pathlib import Path

import click
import httpx2

from deploy.cli.rendering import FORMATS
from ingest.settings import Settings, SettingsError, load
from ingest.store.guard import Guard
from ingest.store.interface import StoreError, database_of
from ingest.store.queries import NamedQuery, named_queries
from ingest.store.server import server_of

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 60.0


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: write NAME=VALUE", param_hint="--param")
        pairs[name] = text
    return pairs


def _print_named() -> None:
    for query in named_queries().values():
        click.echo(f"{query.name}\n    {query.doc}")
        for parameter in query.parameters:
            click.echo(f"    --param {parameter.name}=...  {parameter.doc} ({parameter.type})")


def _resolve(sql: str, given: dict[str, str]) -> str:
    """Return the SQL of a named query, or the text itself where it is no name."""
    found: NamedQuery | None = named_queries().get(sql)
    if found is None:
        return sql
    missing = [parameter.name for parameter in found.parameters if parameter.name not in given]
    if missing:
        raise click.UsageError(f"{found.name} needs " + " ".join(f"--param {name}=..." for name in missing))
    return found.sql


def ask(url: str, sql: str, form: str, parameters: dict[str, str], database: str) -> bytes:
    """Return the endpoint's answer.

    Raises:
        click.ClickException: Cordon is not up, is busy, or refused the query.
    """
    query = {"default_format": form, "database": database}
    query.update({f"param_{name}": value for name, value in parameters.items()})
    timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    try:
        with httpx2.Client(timeout=timeout, trust_env=False) as client:
            answer = client.post(url, params=query, content=sql.encode())
    except httpx2.ConnectError as error:
        raise click.ClickException(
            f"no Cordon answers at {url} ({error}): start it with `cordon up`, or set CORDON_QUERY_PORT to its port"
        ) from error
    except httpx2.HTTPError as error:
        raise click.ClickException(
            f"the answer from {url} did not come whole ({error}): ask for less, or again"
        ) from error
    if answer.status_code != 200:
        raise click.ClickException(answer.text.strip() or f"{url} answered {answer.status_code}")
    return answer.content


def ask_clickhouse(settings: Settings, sql: str, form: str, parameters: dict[str, str], database: str) -> bytes:
    """Return the answer of the ClickHouse that the settings name.

    Raises:
        click.ClickException: it is away, or refused the query; or the format is none that is written here.
    """
    # Imported here: over HTTP the driver is never needed.
    from ingest.store.native import READER_SETTINGS, NativeStore

    if form not in FORMATS:
        raise click.ClickException(
            f"format {form} is ClickHouse's own; over the network there are {', '.join(FORMATS)}"
        )
    try:
        store = NativeStore(server_of(settings), database, settings=READER_SETTINGS, create=False)
        try:
            functions = store.query("SELECT name FROM system.table_functions").rows
            guard = Guard(frozenset(str(name) for (name,) in functions))
            return FORMATS[form](store.query(guard.check(sql), parameters)).encode()
        finally:
            store.close()
    except (StoreError, SettingsError) as error:
        raise click.ClickException(str(error)) from error


def _settings(config: Path | None) -> Settings:
    try:
        return load(os.environ, config)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("sql", required=False)
@click.option("--format", "form", default="PrettyCompactMonoBlock", show_default=True, help="ClickHouse output format.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=VALUE", help="Value of {NAME:Type} in the query.")
@click.option("--lane", default=None, help="Lane to read; the one in the settings where not given.")
@click.option("--config", type=click.Path(path_type=Path, exists=True), default=None, help="Configuration file.")
@click.option("--list", "list_named", is_flag=True, help="List the named queries.")
def query(
    sql: str | None,
    form: str,
    parameters: tuple[str, ...],
    lane: str | None,
    config: Path | None,
    list_named: bool,
) -> None:
    """Run SQL, or a named query, on the running Cordon's store or on the ClickHouse of the settings.

    SQL is read from standard input where it is not given or is `-`.
    """
    if list_named:
        _print_named()
        return
    settings = _settings(config)
    given = _pairs(parameters)
    text = sys.stdin.read() if sql in (None, "-") else str(sql)
    database = database_of(lane or settings.lane)
    if settings.clickhouse_host:
        answer = ask_clickhouse(settings, _resolve(text, given), form, given, database)
    else:
        answer = ask(f"http://127.0.0.1:{settings.query_port}/", _resolve(text, given), form, given, database)
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
