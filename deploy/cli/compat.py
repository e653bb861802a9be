"""`cordon compat`: which version crashes more beside which OS build, model or other driver; a matrix for joint testing.

Reads the store through the read-only endpoint, as `cordon query` does, and hands plain counts to
`detectors.interactions`. The invariant: what the store cannot tell is said beside the matrix, never filled in.
"""

import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from deploy.cli.compat_table import Compatibility, ProductMatrix, Untold, show
from deploy.cli.options import config_option, moment_of, settings_of
from deploy.cli.query import ask, ask_clickhouse
from detectors.interactions import Cell, Matrix, compatibility
from detectors.pairs import FALSE_SHARE, TOLERATED_RATIO
from ingest.settings import Settings
from ingest.signature import normalise_module
from ingest.store.interface import database_of
from ingest.store.queries import named_queries

PRODUCTS_MAX: Final = 8
PRODUCTS_LISTED_MAX: Final = 1000
# 400,000 devices were more than a query's 400 MB, 100,000 took a quarter of its 15 s.
DEVICES_AT_ONCE: Final = 100_000
PARTS_MAX: Final = 64
SINCE_DAYS: Final = 30
_line_decoder = msgspec.json.Decoder(list[Any])


class Product(NamedTuple):
    """A product, and how many devices ever reported an update of it."""

    vendor: str
    product: str
    devices: int


class Source:
    """The store, asked by named query: over HTTP from `cordon up`, or the ClickHouse of the settings."""

    def __init__(self, settings: Settings, lane: str | None) -> None:
        self._settings = settings
        self._database = database_of(lane or settings.lane)

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows.

        Raises:
            click.ClickException: Cordon is not up, is busy, or the query is more than it takes.
        """
        query = named_queries()[name]
        parameters = {parameter.name: str(values[parameter.name]) for parameter in query.parameters}
        form = "JSONCompactEachRow"
        if self._settings.clickhouse_host:
            answer = ask_clickhouse(self._settings, query.sql, form, parameters, self._database)
        else:
            url = f"http://127.0.0.1:{self._settings.query_port}/"
            answer = ask(url, query.sql, form, parameters, self._database)
        return [_line_decoder.decode(line) for line in answer.splitlines() if line]


def _span(source: Source, since: str | None, until: str | None) -> tuple[datetime, datetime]:
    latest_ms, reports = source.rows("compat_span")[0]
    if not int(reports):
        raise click.ClickException(
            "the store holds neither installs nor crashes yet: post reports (`cordon report`), or name another --lane"
        )
    # Event time: a store filled by a replay ends when its story ends, not now.
    end = datetime.fromtimestamp(int(latest_ms) // 1000 + 1, UTC)
    end = moment_of(until, end) if until else end
    begin = moment_of(since, end) if since else end - timedelta(days=SINCE_DAYS)
    if begin >= end:
        raise click.UsageError(f"--since {begin:%Y-%m-%d %H:%M} is not before the end, {end:%Y-%m-%d %H:%M} UTC")
    return begin, end


def _notes(untold: Untold, matrix: Matrix, one_in: int) -> list[str]:
    notes = [
        "Device-time is from `offered` and `installed` reports: a device has what it last told, from when it told it."
        " One that never reported an update of the other product is in no pair with it."
    ]
    if untold.untold:
        notes.append(
            f"{untold.untold:,} of {untold.crashed:,} devices that crashed with this product never reported an update"
            " of it: they are left out, since the like of them that did not crash are not known."
        )
    if untold.moved:
        notes.append(
            f"{untold.moved:,} of {untold.crashed:,} had moved to another OS build since their last report: they count"
            " under the one they told, which blurs differences between builds."
        )
    notes += [
        f"{factor}: {count:,} names beyond the largest are pooled and not tested."
        for factor, count in sorted(matrix.pooled.items())
    ]
    if one_in > 1:
        notes.append(f"From a sample: one device in {one_in}.")
    return notes


def _parts(devices: int, one_in: int) -> list[dict[str, int]]:
    """Return the parts of the fleet to ask for one after the other: a store's query holds so many devices at once.

    Raises:
        click.ClickException: there would be more parts than are asked for.
    """
    count = max(1, math.ceil(devices / one_in / DEVICES_AT_ONCE))
    if count > PARTS_MAX:
        least = math.ceil(devices / DEVICES_AT_ONCE / PARTS_MAX)
        raise click.ClickException(f"{devices:,} devices are more than are counted at once: add --one-in {least}")
    return [{"parts": count * one_in, "part": part} for part in range(count)]


def _examine(source: Source, product: Product, limits: tuple[float, float, int], span: dict[str, Any]) -> ProductMatrix:
    """Return one product's matrix; `limits` are the tolerated ratio, the share of false findings, and the sample."""
    ratio, false_share, one_in = limits
    factors: dict[str, dict[tuple[str, str, str], Cell]] = {}
    sums = [0, 0, 0]
    for part in _parts(product.devices, one_in):
        named = {"vendor": product.vendor, "product": product.product, **span, **part}
        for factor, version, level, stratum, *numbers in source.rows("compat_cells", **named):
            cells = factors.setdefault(factor, {})
            devices, days, crashes = cells.get((version, level, stratum), (0, 0, 0, 0, 0.0, 0))[3:]
            cells[version, level, stratum] = Cell(
                version, level, stratum, devices + int(numbers[0]), days + float(numbers[1]), crashes + int(numbers[2])
            )
        sums = [a + int(b) for a, b in zip(sums, source.rows("compat_untold", **named)[0], strict=True)]
    name, untold = f"{product.vendor}/{product.product}", Untold(*sums)
    try:
        matrix = compatibility({factor: cells.values() for factor, cells in factors.items()}, ratio, false_share)
    except ValueError as error:
        raise click.ClickException(f"{name}: {error}") from error
    return ProductMatrix(
        product=name, since=span["from"], until=span["to"], untold=untold, matrix=matrix,
        notes=_notes(untold, matrix, one_in),
    )  # fmt: skip


def _products(source: Source, named: tuple[str, ...], end: str) -> tuple[list[Product], int]:
    """Return the products to look at, the largest first, and how many are left out."""
    rows = source.rows("compat_products", to=end, limit=PRODUCTS_LISTED_MAX)
    found = [Product(str(row[0]), str(row[1]), int(row[2])) for row in rows]
    if not named:
        return found[:PRODUCTS_MAX], len(found[PRODUCTS_MAX:])
    by_name = {f"{one.vendor}/{one.product}": one for one in found}
    for name in named:
        if "/" not in name:
            raise click.BadParameter(f"{name!r}: write VENDOR/PRODUCT", param_hint="--product")
        if name not in by_name:
            known = ", ".join(list(by_name)[:PRODUCTS_MAX]) or "none"
            raise click.ClickException(f"no device reported an update of {name}; the largest that were: {known}")
    return [by_name[name] for name in dict.fromkeys(named)], 0


def _module(name: str) -> str:
    found = normalise_module(name) if name else ""
    if name and not found:
        raise click.BadParameter(f"{name!r} is no module's name", param_hint="--module")
    return found


@click.command()
@click.option(
    "--product", "products", multiple=True, metavar="VENDOR/PRODUCT", help=f"Else the largest {PRODUCTS_MAX}."
)
@click.option("--since", metavar="TIME", help=f"From when: 12h, 30d, or a UTC time.  [default: {SINCE_DAYS}d]")
@click.option("--until", metavar="TIME", help="Until when.  [default: the latest report's time]")
@click.option("--module", default="", help="Only crashes blamed on this module, for instance csagent.sys.")
@click.option("--one-in", type=click.IntRange(1, 100_000), default=1, show_default=True, help="A sample of devices.")
@click.option(
    "--ratio", type=click.FloatRange(1, 100), default=TOLERATED_RATIO, show_default=True, help="How much worse is fine."
)
@click.option(
    "--false-share", type=click.FloatRange(1e-6, 0.5), default=FALSE_SHARE, show_default=True, help="Of the findings."
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Pairs to print a product."
)
@click.option("--json", "as_json", is_flag=True, help="Print every pair as JSON.")
@click.option("--lane", default=None, help="Lane to read; the one in the settings where not given.")
@config_option
def compat(
    products: tuple[str, ...],
    since: str | None,
    until: str | None,
    module: str,
    one_in: int,
    ratio: float,
    false_share: float,
    limit: int,
    as_json: bool,
    lane: str | None,
    config: Path | None,
) -> None:
    """Show which versions crash more beside an OS build, a model or another driver than either does alone."""
    source = Source(settings_of(config), lane)
    begin, end = _span(source, since, until)
    span = {"from": f"{begin:%Y-%m-%d %H:%M:%S}", "to": f"{end:%Y-%m-%d %H:%M:%S}"}
    asked = {**span, "module": _module(module)}
    chosen, left_out = _products(source, products, span["to"])
    done = [_examine(source, product, (ratio, false_share, one_in), asked) for product in chosen]
    answer = Compatibility(products=done, products_left_out=left_out)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return
    show(answer, limit, sys.stdout)
