"""`cordon report FILE.dmp`: read a Windows kernel triage dump and post what it says to a gateway."""

import os
import platform
import time
from pathlib import Path

import click
import msgspec

from ingest.endpoint.dump import TriageDump, read_triage_dump
from ingest.endpoint.errors import DumpError
from ingest.endpoint.post import PostError, post_reports
from ingest.endpoint.reporter import Device, bsod_of


def _describe(dump: TriageDump) -> None:
    blame = dump.blame
    place = f"{blame.module}+{blame.offset:#x}" if blame.offset is not None else blame.module or "no module"
    click.echo(f"bugcheck  {dump.bugcheck:#x}  on Windows build {dump.os_build}, {dump.machine}")
    click.echo(f"blamed    {place}  by rule {blame.rule}")
    for note in (*blame.notes, *dump.notes):
        click.echo(f"          {note}")
    click.echo(f"drivers   {len(dump.drivers)}, frames {len(dump.frames)}")


@click.command()
@click.argument("dump_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--gateway", default="http://127.0.0.1:8400", show_default=True, help="The gateway's reports listener.")
@click.option("--token-file", type=click.Path(path_type=Path, exists=True), default=None, help="File with the token.")
@click.option("--device", default=platform.node, help="Name of the device; this machine's where not given.")
@click.option("--tenant", default="", help="Tenant, where the token speaks for several.")
@click.option("--form-factor", default="other", type=click.Choice(["laptop", "desktop", "server", "virtual", "other"]))
@click.option("--ring", default="", help="Ring the device is eligible for.")
@click.option("--as-if-now", is_flag=True, help="Post it as a crash of this minute: to try an old dump.")
@click.option("--dry-run", is_flag=True, help="Read and show the dump, post nothing.")
def report(
    dump_file: Path,
    gateway: str,
    token_file: Path | None,
    device: str,
    tenant: str,
    form_factor: str,
    ring: str,
    as_if_now: bool,
    dry_run: bool,
) -> None:
    """Read a triage dump, name the module at fault, and post it.

    The token comes from --token-file or from CORDON_TOKEN.
    """
    try:
        dump = read_triage_dump(dump_file)
    except (DumpError, OSError) as error:
        raise click.ClickException(f"{dump_file}: {error}") from error
    _describe(dump)
    if dry_run:
        return
    token = token_file.read_text().strip() if token_file is not None else os.environ.get("CORDON_TOKEN", "")
    if not token:
        raise click.UsageError("give a token with --token-file or in CORDON_TOKEN; `cordon token add` makes one")
    if as_if_now:
        dump = msgspec.structs.replace(dump, crash_time_ms=None)
    who = Device(name=device, tenant=tenant, form_factor=form_factor, ring=ring)
    try:
        answer = post_reports(gateway, token, [bsod_of(dump, who, time.time_ns() // 1_000_000)])
    except PostError as error:
        hint = "\nThe dump is old; --as-if-now posts it as a crash of this minute, to try it" * (
            error.reason == "too_old"
        )
        raise click.ClickException(f"{error}{hint}") from error
    click.echo(f"accepted  {answer.accepted} by {gateway}")
