"""`cordon backtest --store`: the rollouts that a store has recorded, through a policy and through what others use.

What was true of them nobody knows, so it prints decisions only, and what the recording lacks. The exit code is 0, or 2
where the store could not be read.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec
from rich.console import Console

from deploy.backtest.recorded import bounded, trace_of
from deploy.backtest.store import DEVICES_MAX, ROLLOUTS_MAX, RecordedStore, Recording
from deploy.backtest.tables import WIDTH, recorded_table
from deploy.cli.options import moment_of
from detectors.backtest.peers.registry import PEERS
from detectors.backtest.score import Score, run_cordon, run_peer
from detectors.policy import Policies
from ingest.rollouts import Bound, Rollout

SINCE_DAYS: Final = 30
NOT_READ_CODE: Final = 2
LACKS: Final = (
    "The store has no check-ins by device: who is at risk is what `offered` and `installed` reports say, time since "
    "boot is not known, and silence is not judged. So nothing is ever told to proceed, and devices lost in a boot loop "
    "are not seen. README.md of deploy/backtest has the rest."
)


class Question(NamedTuple):
    """What is asked of which store; times as the command line has them."""

    url: str
    lane: str
    since: str | None
    until: str | None
    product: str | None


class Recorded(msgspec.Struct, kw_only=True):
    """One recorded rollout, and what everybody would have decided.

    Attributes:
        took: devices known to have taken the update.
        controls: devices known to have another version.
        crashes: crash reports of devices with the product.
        notes: what this recording lacks.
        scores: decisions; what they say of losses is void, since the truth is unknown.
    """

    rollout: str
    update: str
    origin_ms: int
    until_ms: int
    took: int
    controls: int
    crashes: int
    notes: list[str]
    scores: list[Score]


class RecordedBacktest(msgspec.Struct, kw_only=True):
    """What `--json` writes."""

    schema: int = 1
    policy: str
    rollouts: list[Recorded]


class NotReadError(click.ClickException):
    """The store could not be read, or has nothing to run."""

    exit_code = NOT_READ_CODE


def run_recorded(question: Question, policies: Policies, peers: bool, json_file: Path | None) -> None:
    """Run all rollouts that the question is about, print a table of each, and write the file.

    Raises:
        click.ClickException: the store could not be read, or has no such rollout; with exit code 2.
    """
    try:
        store, found, end = _found(question)
        console = Console(width=WIDTH)
        console.print(LACKS, "\n", highlight=False)
        recordings = store.recordings(found, end)
        done = judge(recordings, policies, peers)
        for one in done:
            console.print(recorded_table(one.update, _head(one), one.scores))
            for note in one.notes:
                console.print(f"  {note}", highlight=False, markup=False)
            console.print()
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise NotReadError(error.message) from error
    if json_file is not None:
        result = RecordedBacktest(policy=policies.default.digest, rollouts=done)
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def _found(question: Question) -> tuple[RecordedStore, list[Rollout], datetime]:
    store = RecordedStore(question.url, question.lane)
    latest = store.end()
    if latest is None:
        raise NotReadError(f"the store holds neither installs nor crashes in lane {question.lane}: name another --lane")
    end = moment_of(question.until, latest) if question.until else latest
    begin = moment_of(question.since, end) if question.since else end - timedelta(days=SINCE_DAYS)
    if begin >= end:
        raise click.UsageError(f"--since {begin:%Y-%m-%d %H:%M} is not before the end, {end:%Y-%m-%d %H:%M} UTC")
    vendor, product = _product(question.product)
    found = store.rollouts(begin, end, vendor, product)
    if not found:
        what = f"of {question.product} " if question.product else ""
        raise NotReadError(f"no rollout {what}began between {begin:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M} UTC")
    if len(found) == ROLLOUTS_MAX:
        click.echo(f"the first {ROLLOUTS_MAX} rollouts only: narrow --since and --until, or name a --product", err=True)
    return store, found, end


def _product(name: str | None) -> tuple[str, str]:
    if name is None:
        return "", ""
    vendor, slash, product = name.partition("/")
    if not (slash and vendor and product):
        raise click.BadParameter(f"{name!r}: write VENDOR/PRODUCT", param_hint="--product")
    return vendor, product


def judge(recordings: Sequence[Recording], policies: Policies, peers: bool) -> list[Recorded]:
    """Let Cordon's detection stage watch recorded rollouts together, and the peers each by itself."""
    trace = trace_of(recordings)
    scores = run_cordon(trace, policies, to_end=False)[1]
    for make in PEERS if peers else ():
        scores += run_peer(trace, make())
    return [_recorded(one, [score for score in scores if score.rollout == one.rollout.rollout]) for one in recordings]


def _recorded(recording: Recording, scores: list[Score]) -> Recorded:
    rollout = recording.rollout
    return Recorded(
        rollout=rollout.rollout,
        update=f"{rollout.vendor}/{rollout.product}/{rollout.version}",
        origin_ms=rollout.origin_ms,
        until_ms=recording.until_ms,
        took=len(recording.exposures()),
        controls=sum(one.other_ms > 0 for one in recording.devices),
        crashes=len(recording.crashes),
        notes=_notes(recording, scores),
        scores=scores,
    )


def _notes(recording: Recording, scores: list[Score]) -> list[str]:
    notes = [f"cordon: {scores[0].decided.sentence}"] if scores[0].decided.sentence else []
    known = {one.device for one in recording.devices}
    unknown = len({one.device for one in recording.crashes} - known)
    if unknown:
        notes.append(
            f"{unknown:,} of {len({one.device for one in recording.crashes}):,} devices that crashed never reported an "
            "update of the product: their crashes count, and they are nowhere at risk before"
        )
    if not any(one.other_ms for one in recording.devices):
        notes.append("no device is known to have another version: there is no control to compare with")
    if bounded(recording).bound is Bound.NONE:
        notes.append("nothing that is recorded bounds who was exposed: only a declaration's rings or `offered` would")
    if recording.one_in > 1:
        notes.append(f"a sample, since there are more than {DEVICES_MAX:,}: one device in {recording.one_in}")
    return notes


def _head(one: Recorded) -> str:
    return f"{one.took:,} devices took it, {one.controls:,} had another version, {one.crashes:,} crash reports"
