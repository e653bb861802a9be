"""The incident report of a demo's replay: written while its embedded Cordon still runs, from what that has stored.

Called by `cordon demo`. Invariant: a report is written once the store has everything that the log has.
"""

import time
from pathlib import Path
from typing import Final

from dashboards.incident.source import IncidentError, StoreSource
from deploy.cli.incident import http_trail, store_ask, write_report
from deploy.embedded.process import RunningEmbedded
from signals.client import PublicKeys

STORED_SECONDS_MAX: Final = 120.0


def report_of(cordon: RunningEmbedded, rollout: str, token: str, keys: PublicKeys, out: Path) -> Path:
    """Write a rollout's report and return where it lies.

    Raises:
        IncidentError: the store does not catch up, or does not know the rollout.
    """
    settings = cordon.embedded.settings
    wait_until_stored(cordon)
    source = StoreSource(store_ask(settings, settings.lane, cordon.query_url), http_trail(cordon.streams_url, token))
    write_report(out, rollout, settings.lane, keys, source)
    return out


def wait_until_stored(cordon: RunningEmbedded, seconds_max: float = STORED_SECONDS_MAX) -> None:
    """Return once the store has all that the log has.

    Raises:
        IncidentError: it has no store, or takes longer than `seconds_max`.
    """
    sink, log = cordon.embedded.parts.sink, cordon.embedded.parts.log
    if sink is None:
        raise IncidentError("this Cordon has no store (`store = false`), from which a report could be written")
    deadline = time.monotonic() + seconds_max
    while any(offset < log.bounds(source)[1] for source, offset in sink.flushed.items()):
        if time.monotonic() >= deadline:
            raise IncidentError(f"the store has not caught up within {seconds_max:.0f} s: no report can be written")
        time.sleep(0.05)
