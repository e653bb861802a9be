"""`cordon audit`: show the audit trail, and check that nobody has changed it.

Reads a running Cordon over HTTP, or the data folder of one that is not running (a copy will do). Invariant: `verify`
ends with 0 only if every entry of every partition was read, follows the one before, and says what its signed event
says.
"""

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import httpx2
import msgspec

from deploy.cli.streams import HTTP_SECONDS, fail, fetch_keys, key_option, one_line, read_keys, token_of, token_option
from ingest.clock import WallClock
from ingest.events import UNREADABLE_ERRORS
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Log, LogError, TopicPartition
from ingest.log.specs import topic_specs
from ingest.topics import LIVE_LANE, Topics, keyed_partition_of
from signals.events import AuditEntry, audit_decoder, place_decoder
from signals.killswitch.audit_check import ChainReport, verify_chain
from signals.killswitch.keys import KeyFiles
from signals.killswitch.place import PLACE_PREFIX
from signals.killswitch.signing import KeyFormatError, PublicKeys, SwitchError
from signals.killswitch.verify import VerifiedEvent, open_event, parse_envelope

_PAGE = 500
_url = click.option("--url", help="Ask a running Cordon's streams listener; otherwise the data folder is read.")
_data = click.option(
    "--data", "--data-dir", "data_dir", type=click.Path(path_type=Path), default=Path("cordon-data"), show_default=True,
    envvar="CORDON_DATA_DIR", help="Data folder of a Cordon that is not running, or a copy of it.",
)  # fmt: skip
_lane = click.option(
    "--lane", default=LIVE_LANE, show_default=True, help="Lane whose trail is meant, in a data folder."
)


class _Trail(Protocol):
    """Where a trail is read."""

    @property
    def partitions(self) -> int:
        """Return how many chains there are."""
        ...

    def entries(self, partition: int) -> Iterator[bytes]:
        """Yield the bytes of every entry of a partition, in order."""
        ...

    def events(self, keys: PublicKeys) -> dict[int, list[VerifiedEvent]]:
        """Return the verified events by partition."""
        ...

    def head(self, partition: int) -> tuple[int, str] | None:
        """Return an entry that is known to have been written, if there is such a word."""
        ...


@click.group()
def audit() -> None:
    """Show the audit trail, or check it."""


@audit.command()
@_url
@_data
@_lane
@token_option
@click.option("--rollout", help="Only entries about this rollout.")
@click.option("--json", "as_json", is_flag=True, help="Print each entry as it lies in the log, one a line.")
def show(
    url: str | None, data_dir: Path, lane: str, token_file: Path | None, rollout: str | None, as_json: bool
) -> None:
    """Print who asked for what and what became of it, oldest first."""
    with _opened(url, data_dir, lane, token_file) as trail:
        for partition in range(trail.partitions):
            for data in trail.entries(partition):
                try:
                    entry = audit_decoder.decode(data)
                except UNREADABLE_ERRORS as error:
                    fail(f"an entry of partition {partition} can't be read ({error}): run `cordon audit verify`")
                if rollout is None or entry.rollout == rollout:
                    click.echo(data.decode() if as_json else _line(entry))


@audit.command()
@_url
@_data
@_lane
@token_option
@key_option
@click.option("--head", help="PARTITION:NUMBER:DIGEST that an earlier check printed: it must still be so.")
def verify(
    url: str | None, data_dir: Path, lane: str, token_file: Path | None, key_file: Path | None, head: str | None
) -> None:
    """Check every entry, and every event against its entry. Exits 0 or 1, and says which entry is wrong."""
    known = _known_head(head)
    reports = {}
    with _opened(url, data_dir, lane, token_file) as trail:
        partitions = range(trail.partitions)
        entries = {number: list(trail.entries(number)) for number in partitions}
        try:
            events = trail.events(_keys(url, data_dir, key_file))
        except SwitchError as error:
            fail(f"NOT WHOLE: an event can't be believed: {error}")
        for number in partitions:
            # A running Cordon goes on: events whose entries came after those that were read are not missing any.
            later = _entered(trail.entries(number)) - _entered(entries[number])
            matched = [event for event in events.get(number, []) if event.event.id not in later]
            kept = known[1] if known is not None and known[0] == number else trail.head(number)
            reports[number] = verify_chain(entries[number], matched, kept)
    _conclude(reports)


def _entered(entries: Iterable[bytes]) -> set[str]:
    found = set()
    for data in entries:
        with contextlib.suppress(*UNREADABLE_ERRORS):
            found.add(audit_decoder.decode(data).event_id)
    return found


def _conclude(reports: dict[int, ChainReport]) -> None:
    for partition, report in reports.items():
        for finding in report.findings:
            click.echo(f"partition {partition}: {finding.fault.value}: {finding.sentence}", err=True)
        if report.whole:
            head = f"{partition}:{report.number}:{report.digest}" if report.number else "-"
            click.echo(f"partition {partition}: {report.entries} entries, {report.events} events, head {head}")
    if not all(report.whole for report in reports.values()):
        fail("NOT WHOLE: the audit trail is not as it was written")
    click.echo("whole: every entry follows the one before, and every event has its entry")


class _LogTrail:
    """The trail of a log that this process has opened."""

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log, self._topics = log, topics

    @property
    def partitions(self) -> int:
        return self._topics.keyed_partitions

    def entries(self, partition: int) -> Iterator[bytes]:
        return (value for _, value in self._records("audit", partition))

    def events(self, keys: PublicKeys) -> dict[int, list[VerifiedEvent]]:
        return {
            partition: [open_event(parse_envelope(value), keys) for _, value in self._records("killswitch", partition)]
            for partition in range(self.partitions)
        }

    def head(self, partition: int) -> tuple[int, str] | None:
        places = [value for key, value in self._records("switches", partition) if key.startswith(PLACE_PREFIX)]
        return place_decoder.decode(places[-1]).audit if places else None

    def _records(self, word: str, partition: int) -> Iterator[tuple[bytes, bytes]]:
        source = TopicPartition(self._topics.name(word), partition)
        offset, end = self._log.bounds(source)
        while offset < end and (records := self._log.read(source, offset)):
            yield from ((record.key or b"", record.value) for record in records if record.value is not None)
            offset = records[-1].offset + 1


class _Page(msgspec.Struct):
    entries: list[msgspec.Raw]
    next: int
    more: bool
    partitions: int


class _Events(msgspec.Struct):
    events: list[msgspec.Raw]
    next: str


class HttpTrail:
    """The trail of a running Cordon; its events come by the cursor of the long poll."""

    def __init__(self, url: str, token: str | None) -> None:
        """Ask how many partitions the trail has; whatever is not answered ends the command."""
        self._url, self._headers = url.rstrip("/"), {"authorization": f"Bearer {token}"} if token else {}
        self.partitions = self._page(0, 0).partitions

    def entries(self, partition: int) -> Iterator[bytes]:
        """Yield the bytes of every entry; see `_Trail.entries`."""
        after, more = 0, True
        while more:
            page = self._page(partition, after)
            yield from (bytes(entry) for entry in page.entries)
            after, more = page.next, page.more

    def events(self, keys: PublicKeys) -> dict[int, list[VerifiedEvent]]:
        """Return the verified events by partition; see `_Trail.events`."""
        found: dict[int, list[VerifiedEvent]] = {}
        query: dict[str, Any] = {"from": "start", "drills": "include", "limit": _PAGE}
        while True:
            page = msgspec.json.decode(self._get("/v1/killswitch/events", query), type=_Events)
            if not page.events:
                return found
            for envelope in page.events:
                event = open_event(parse_envelope(bytes(envelope)), keys)
                found.setdefault(keyed_partition_of(event.switch.rollout, self.partitions), []).append(event)
            query = {"after": page.next, "drills": "include", "limit": _PAGE}

    def head(self, _partition: int) -> tuple[int, str] | None:
        """Return None: a listener gives no such word."""
        return None

    def _page(self, partition: int, after: int) -> _Page:
        query = {"partition": partition, "after": after, "limit": _PAGE}
        return msgspec.json.decode(self._get("/v1/audit", query), type=_Page)

    def _get(self, path: str, query: dict[str, Any]) -> bytes:
        try:
            answer = httpx2.get(self._url + path, params=query, headers=self._headers, timeout=HTTP_SECONDS)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            fail(f"no answer from {self._url}: {error}")
        if answer.status_code != 200:
            fail(f"{path} was refused ({answer.status_code}): {answer.text[:500]}")
        return answer.content


@contextmanager
def _opened(url: str | None, data_dir: Path, lane: str, token_file: Path | None) -> Iterator[_Trail]:
    if url is not None:
        yield HttpTrail(url, token_of(token_file))
        return
    folder = data_dir / "log"
    if not folder.is_dir():
        fail(f"{folder} holds no log: name a data folder with --data, or a running Cordon with --url")
    try:
        topics = Topics(lane)
        log = EmbeddedLog(folder, topic_specs(topics), WallClock())
        try:
            yield _LogTrail(log, topics)
        finally:
            log.close()
    except (LogError, ValueError) as error:
        fail(f"NOT READ: {error}. Of a running Cordon the trail is read by --url and --token-file")


def _keys(url: str | None, data_dir: Path, key_file: Path | None) -> PublicKeys:
    if key_file is not None:
        return read_keys(key_file)
    try:
        return fetch_keys(url) if url is not None else KeyFiles(data_dir).public()
    except KeyFormatError as error:
        fail(str(error))


def _known_head(text: str | None) -> tuple[int, tuple[int, str]] | None:
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit() or len(parts[2]) != 64:
        raise click.UsageError(
            f"--head {text[:100]!r}: write PARTITION:NUMBER:DIGEST, as `cordon audit verify` prints it"
        )
    return int(parts[0]), (int(parts[1]), parts[2])


def _line(entry: AuditEntry) -> str:
    at = dt.datetime.fromtimestamp(entry.at_ms / 1000, dt.UTC)
    who = f"{entry.name} ({entry.principal})" if entry.principal else entry.actor
    about = entry.rollout + (f" ({entry.scope.text})" if not entry.scope.whole else "")
    event = f" [event {entry.event_id}]" if entry.event_id else ""
    said = f"{entry.action} by {who}: {entry.result}: {entry.sentence}"
    return one_line(f"{entry.number:6} {at:%Y-%m-%d %H:%M:%SZ} {about} {said}{event}")
