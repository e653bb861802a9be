"""`cordon dashboards preview`: one panel of a committed board as a file, where there is no Grafana to look at.

Thin over `dashboards.grafana.preview`. Invariant: a file is written whole or not at all.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from dashboards.grafana.preview.asking import FORM, Ask, view_of
from dashboards.grafana.preview.definition import PreviewError, committed
from dashboards.grafana.preview.page import preview, width_of
from deploy.cli.options import config_option, moment_of, settings_of
from deploy.cli.query import ask
from ingest.clock import WallClock
from ingest.store.interface import database_of


@click.command("preview")
@click.argument("board")
@click.argument("panel")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True,
    help="The file to write: .html, or .png where Playwright and Chromium are installed.",
)  # fmt: skip
@click.option("--var", "chosen", multiple=True, metavar="NAME=VALUE", help="A value of one of the board's variables.")
@click.option("--since", metavar="TIME", help="From when: 90m, 12h, 30d, or a UTC time.  [default: the board's]")
@click.option("--until", metavar="TIME", help="Until when.  [default: now]")
@click.option("--store", metavar="URL", help="The query endpoint.  [default: that of `cordon up` on this machine]")
@click.option("--lane", metavar="NAME", help="Lane to read; the one in the settings where not given.")
@config_option
def preview_(
    board: str, panel: str, out: Path, chosen: tuple[str, ...], since: str | None, until: str | None,
    store: str | None, lane: str | None, config: Path | None,
) -> None:  # fmt: skip
    """Draw one panel of a board by its definition and its own query; it is not Grafana that draws it.

    BOARD is its name, such as cordon-rollout; PANEL the title of a panel. A wrong name lists those there are.
    """
    if out.suffix not in (".html", ".png"):
        raise click.BadParameter(f"{str(out)!r}: name a file that ends in .html or .png", param_hint="--out")
    settings = settings_of(config)
    url, database = store or f"http://127.0.0.1:{settings.query_port}/", database_of(lane or settings.lane)
    try:
        write_preview(
            out, board, panel, _pairs(chosen), lambda seconds: _span(since, until, seconds),
            lambda sql: ask(url, sql, FORM, {}, database),
        )  # fmt: skip
    except PreviewError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error
    click.echo(out)


def write_preview(
    out: Path, uid: str, label: str, chosen: dict[str, list[str]],
    span: Callable[[int], tuple[datetime, datetime]], asked: Ask,
) -> None:  # fmt: skip
    """Write the preview of a panel.

    Args:
        out: the file, .html or .png; one that is there is replaced.
        uid: of the board.
        label: of the panel.
        chosen: values of the board's variables.
        span: gives begin and end of the time range, from how many seconds the board looks back.
        asked: the store.

    Raises:
        PreviewError: there is no such panel, or no preview can be made of it.
        OSError: the file can't be written.
    """
    board = committed(uid)
    panel = board.panel(label)
    start, end = span(board.span_seconds)
    view = view_of(board, start, end, width_of(panel), chosen, asked)
    text = preview(board, panel, view, asked)
    out.parent.mkdir(parents=True, exist_ok=True)
    partly = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.suffix == ".png":
            _picture(text, partly, width_of(panel))
        else:
            partly.write_text(text, encoding="utf-8")
        partly.replace(out)
    finally:
        partly.unlink(missing_ok=True)


def _picture(text: str, out: Path, width: int) -> None:
    try:
        # Imported here: Playwright is among the development dependencies.
        from dashboards.grafana.preview.picture import chromium, shoot
    except ImportError as error:
        raise PreviewError("a picture needs Playwright: `pip install playwright`; or write an .html file") from error
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page_file = Path(folder) / "preview.html"
        page_file.write_text(text, encoding="utf-8")
        shoot(browser, page_file, out, width)


def _span(since: str | None, until: str | None, seconds: int) -> tuple[datetime, datetime]:
    now = datetime.fromtimestamp(WallClock().now_ms() / 1000, UTC)
    end = moment_of(until, now) if until else now
    start = moment_of(since, end) if since else end - timedelta(seconds=seconds)
    if start >= end:
        raise click.UsageError(f"--since {start:%Y-%m-%d %H:%M} is not before the end, {end:%Y-%m-%d %H:%M} UTC")
    return start, end


def _pairs(chosen: Iterable[str]) -> dict[str, list[str]]:
    """Return values by variable; one that is named twice has both."""
    found: dict[str, list[str]] = {}
    for one in chosen:
        name, equals, value = one.partition("=")
        if not equals or not value:
            raise click.BadParameter(f"{one!r}: write NAME=VALUE", param_hint="--var")
        found.setdefault(name, []).append(value)
    return found
