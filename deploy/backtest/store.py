"""What a store has of past rollouts, asked over the read-only endpoint as `cordon query` does.

The invariant: a query's answer is bounded. Devices are asked for part by part, by a hash of their name, and where there
are more than `DEVICES_MAX` a sample is taken by the same hash, the same devices in every rollout, which no crash can
influence.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from deploy.cli.query import ask
from ingest.rollouts import Rollout, rollout_decoder
from ingest.store.interface import database_of
from ingest.store.queries import named_queries

ROWS_AT_ONCE: Final = 40_000
# Over all rollouts together: so many fit into memory.
DEVICES_MAX: Final = 2_000_000
ROLLOUTS_MAX: Final = 100
# A device without the update counts as control if it reported an update of anything so shortly before the rollout.
HEARD_MS: Final = 7 * 86_400_000
# Later reports than that are no evidence in a running Cordon either.
LATE_MS: Final = 26 * 3_600_000
# A rollout is followed for so long: what it does later is hardly its own doing, and the minutes are kept in memory.
FOLLOWED_MS: Final = 14 * 86_400_000
_QUERIES: Final = Path(__file__).parent / "queries"
_line_decoder = msgspec.json.Decoder(list[Any])


class Device(NamedTuple):
    """A device that reported an update of the product; times in milliseconds since the epoch, 0 for never."""

    device: str
    tenant: str
    os_build: str
    form_factor: str
    model: str
    ring: str
    other_ms: int
    exposed_ms: int
    known_ms: int


class Crash(NamedTuple):
    """A crash report; `named` when the versions read from disk include the rollout's."""

    device: str
    at_ms: int
    received_ms: int
    kind: str
    tenant: str
    os_build: str
    form_factor: str
    model: str
    ring: str
    site: str
    signature: str
    named: bool


class Recording(NamedTuple):
    """All that a store has of one rollout.

    Attributes:
        until_ms: how far it is followed.
        devices, crashes: in the sample.
        check_ins: minute's beginning to check-ins of the whole fleet.
        fleet: devices that reported an update of anything, in the whole store.
        offers: whether devices said `offered`.
        one_in: which part of the devices is in the sample.
    """

    rollout: Rollout
    until_ms: int
    devices: list[Device]
    crashes: list[Crash]
    check_ins: Mapping[int, int]
    fleet: int
    offers: bool
    one_in: int

    @property
    def last_ms(self) -> int:
        """When the last report of it arrived, at least `until_ms`: devices that were down report late."""
        late = max((one.received_ms for one in self.crashes), default=0)
        return max(self.until_ms, min(late + 1, self.until_ms + LATE_MS))

    def exposures(self) -> dict[str, tuple[int, int]]:
        """Return each exposed device's time of exposure, and when that became known: also by a crash that says so."""
        found = {one.device: (one.exposed_ms, one.known_ms) for one in self.devices if one.exposed_ms}
        for crash in self.crashes:
            if crash.named:
                since, known = found.get(crash.device, (crash.at_ms, crash.received_ms))
                found[crash.device] = (min(since, crash.at_ms), min(known, crash.received_ms))
        return found


class RecordedStore:
    """A store behind its read-only endpoint.

    Args:
        url: the endpoint, for instance `http://127.0.0.1:8402/`.
        lane: the lane to read.
    """

    def __init__(self, url: str, lane: str) -> None:
        self._url = url if url.endswith("/") else f"{url}/"
        self._database = database_of(lane)
        self._queries = {**named_queries(), **named_queries(_QUERIES)}

    def rows(self, name: str, **values: object) -> list[list[Any]]:
        """Return a named query's rows.

        Raises:
            click.ClickException: nothing answers there, it is busy, or the query is more than it takes.
        """
        query = self._queries[name]
        parameters = {parameter.name: str(values[parameter.name]) for parameter in query.parameters}
        answer = ask(self._url, query.sql, "JSONCompactEachRow", parameters, self._database)
        return [_line_decoder.decode(line) for line in answer.splitlines() if line]

    def end(self) -> datetime | None:
        """Return the moment after the latest install or crash; None for an empty store."""
        latest_ms, reports = self.rows("compat_span")[0]
        return datetime.fromtimestamp(int(latest_ms) // 1000 + 1, UTC) if int(reports) else None

    def rollouts(self, begin: datetime, end: datetime, vendor: str, product: str) -> list[Rollout]:
        """Return the rollouts that began in a span; of one product, or of all where both names are empty."""
        span = {"from": _second(begin), "to": _second(end), "vendor": vendor, "product": product}
        found = self.rows("recorded_rollouts", **span, limit=ROLLOUTS_MAX)
        return [rollout_decoder.decode(str(text).encode()) for (text,) in found]

    def recordings(self, rollouts: Sequence[Rollout], end: datetime) -> list[Recording]:
        """Read all that there is of some rollouts, of the same sample of devices."""
        asked = [_asked(rollout, end) for rollout in rollouts]
        sizes = [_Size._make(map(int, self.rows("recorded_size", **one)[0])) for one in asked]
        one_in = max(1, math.ceil(sum(size.devices for size in sizes) / DEVICES_MAX))
        return [self._recording(*each, one_in) for each in zip(rollouts, asked, sizes, strict=True)]

    def _recording(self, rollout: Rollout, asked: dict[str, Any], size: "_Size", one_in: int) -> Recording:
        parts = max(1, math.ceil(max(size.devices, size.crashes) / one_in / ROWS_AT_ONCE))
        devices: list[Device] = []
        crashes: list[Crash] = []
        for part in range(parts):
            cut = {"one_in": one_in, "parts": parts, "part": part}
            devices += [
                Device._make([*row[:6], *map(int, row[6:])]) for row in self.rows("recorded_devices", **asked, **cut)
            ]
            crashes += [
                Crash._make([row[0], int(row[1]), int(row[2]), *row[3:-1], bool(int(row[-1]))])
                for row in self.rows("recorded_crashes", **asked, **cut)
            ]
        span = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (rollout.origin_ms, asked["to"])]
        minutes = self.rows("check_ins", **{"from": _second(span[0]), "to": _second(span[1])})
        check_ins = {_minute_ms(minute): int(count) for minute, count in minutes}
        return Recording(rollout, asked["to"], devices, crashes, check_ins, size.fleet, size.offers > 0, one_in)


class _Size(NamedTuple):
    """How much there is of a rollout; see recorded_size.sql."""

    devices: int
    fleet: int
    offers: int
    crashes: int


def _asked(rollout: Rollout, end: datetime) -> dict[str, Any]:
    return {
        "vendor": rollout.vendor, "product": rollout.product, "version": rollout.version,
        "origin": rollout.origin_ms, "heard": rollout.origin_ms - HEARD_MS,
        "to": min(int(end.timestamp() * 1000), rollout.origin_ms + FOLLOWED_MS),
    }  # fmt: skip


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _minute_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
