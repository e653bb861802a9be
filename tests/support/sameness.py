"""What one scenario left in a lane's log, in a form that compares: cohort counts, verdicts, decisions.

Left out is what says how and where it was worked out (generations, offsets, wall clocks, signatures), and the moment of
a rollout's first word: nothing orders the reading of a declaration among the steps. All later words must be equal.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from deploy.replay.remote import connected, fetch_keys
from deploy.replay.result import ReplayResult
from detectors.backtest.scenario import Scenario
from detectors.verdict import Reason, verdict_decoder
from ingest.log.interface import Log, Record, TopicPartition
from ingest.topics import TOPICS, Topics
from ingest.windows import step_decoder
from signals.killswitch.verify import parse_envelope

# What a window says the same when a new owner says a step again. The rest may be said more fully: an owner that has
# just loaded its state names every cell, where one that goes on names those that changed.
SAID_AGAIN = ("rollout", "origin_ms", "crashes", "crash_total", "exposed_total", "heard")
Cohorts = dict[tuple[int, int], tuple[int, list[Any]]]


@dataclass(frozen=True, slots=True)
class Left:
    """What a scenario left.

    Attributes:
        cohorts: by device partition and watermark: the watermark before, and the windows.
        verdicts: by rollout, in order.
        events: of the kill switch by rollout, in order.
        result: what the replay itself saw.
    """

    cohorts: Cohorts
    verdicts: dict[str, list[dict[str, Any]]]
    events: dict[str, list[dict[str, Any]]]
    result: ReplayResult


def replay_through(
    scenario: Scenario, urls: dict[str, str], token: str, lane: str, devices: int, settle_seconds: float | None = None
) -> ReplayResult:
    """Replay a scenario through a Cordon that runs, and obey its kill switch."""
    with connected(
        scenario,
        reports_url=urls["reports"],
        streams_url=urls["streams"],
        token=token,
        lane=lane,
        keys=fetch_keys(urls["streams"]),
        devices=devices,
        settle_seconds=settle_seconds,
    ) as replay:
        return replay.run()


def left_in(log: Log, topics: Topics, result: ReplayResult) -> Left:
    """Return what a scenario left in a lane; nothing of it may have been compacted or aged yet."""
    return Left(_cohorts(log, topics), _verdicts(log, topics), _events(log, topics), result)


def _records(log: Log, topics: Topics, word: str) -> Iterator[Record]:
    topic = next(one for one in TOPICS if one.word == word)
    for number in range(topics.partitions(topic)):
        source = TopicPartition(topics.name(word), number)
        offset, end = log.bounds(source)
        while offset < end and (records := log.read(source, offset)):
            yield from records
            offset = records[-1].offset + 1


def _cohorts(log: Log, topics: Topics) -> Cohorts:
    """Put together what each step said to every keyed partition; a step said again must say the same."""
    found: dict[tuple[int, int], tuple[int, dict[str, Any]]] = {}
    for record in _records(log, topics, "cohorts"):
        step = step_decoder.decode(record.value or b"")
        if step.since_ms == step.watermark_ms:
            # Only says that activity stands still now, which depends on what was read when.
            continue
        since_ms, windows = found.setdefault((step.partition, step.watermark_ms), (step.since_ms, {}))
        assert since_ms == step.since_ms
        for window in step.windows:
            told = msgspec.to_builtins(window)
            # How many crashes wait for activity depends on what was read when, too.
            told.pop("pending")
            before = windows.setdefault(window.rollout, told)
            differ = [name for name in SAID_AGAIN if before[name] != told[name]]
            assert not differ, (step.partition, step.generation, step.watermark_ms, before, told)
    return {key: (since_ms, [windows[name] for name in sorted(windows)]) for key, (since_ms, windows) in found.items()}


def _verdicts(log: Log, topics: Topics) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in _records(log, topics, "verdicts"):
        verdict = verdict_decoder.decode(record.value or b"")
        found.setdefault(verdict.rollout, []).append(msgspec.to_builtins(verdict))
    return {
        rollout: [verdict for verdict in said[1:] if verdict["reason"] != Reason.NO_EXPOSURE]
        for rollout, said in found.items()
    }


def _events(log: Log, topics: Topics) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in _records(log, topics, "killswitch"):
        data = msgspec.json.decode(base64.b64decode(parse_envelope(record.value or b"").payload))["data"]
        for name in ("decided_ms", "previous_digest"):
            data.pop(name)
        if data["number"] == 1 and data["decision"] == "unknown":
            for name in ("watermark_ms", "reason", "sentence", "evidence"):
                data.pop(name)
        found.setdefault(data["rollout"], []).append(data)
    return found
