"""`cordon verify`: one event against public keys, without a running Cordon.

Registered by `deploy.cli.main`. Invariant: an exit code of 0 means that the event is one that a trusted key signed.
"""

from pathlib import Path
from typing import Any

import click

from deploy.cli.streams import event_line, fail, read_keys
from signals.client import SwitchError
from signals.killswitch.verify import open_event, parse_envelope

EVENT_FILE_BYTES_MAX = 1 << 20


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), required=True, help="The JSON of /v1/keys, or a PEM."
)
def verify(file: Any, key_file: Path) -> None:
    """Check one event (a DSSE envelope in JSON; - reads standard input) against public keys. Exits 0 or 1."""
    trusted = read_keys(key_file)
    data = file.read(EVENT_FILE_BYTES_MAX + 1)
    if len(data) > EVENT_FILE_BYTES_MAX:
        fail(f"NOT BELIEVED: an event has at most {EVENT_FILE_BYTES_MAX} bytes")
    try:
        verified = open_event(parse_envelope(data), trusted)
    except SwitchError as error:
        fail(f"NOT BELIEVED: {error}")
    click.echo(f"verified: {event_line(verified.switch)}")
    click.echo(
        f"signed by a key in {key_file}; digest {verified.digest}; follows {verified.switch.previous_digest or '-'}"
    )


COMMANDS: tuple[click.Command, ...] = (verify,)
