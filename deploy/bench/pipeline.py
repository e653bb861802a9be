"""Log to verdict: how fast records in the log become counts and verdicts, with the store and without.

The log is filled first, as the gateway would fill it; then the embedded Cordon's own parts read it to the end. In the
same run and on the same reports goes the plain loop that anybody would write: decode, drop duplicates, count.
"""

import gc
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec

from deploy.bench.figures import Figure, at_least, printed
from deploy.bench.traffic import NEW_VERSION, PRODUCT, VENDOR, Traffic, chunks, entries_of
from deploy.embedded.parts import Parts, build
from ingest.clock import WallClock
from ingest.events import CheckIn, Report, RolloutNotice, encoder
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.specs import topic_specs
from ingest.rollouts import Bound, Rollout, rollout_id
from ingest.settings import Settings
from ingest.topics import Topics

DEVICES = 250_000
REPORTS = 1_500_000
START_MS = 1_721_361_600_000
# What the gateway writes at 200,000 reports/s: a tick every 250 ms, and 6,250 reports in each partition between two.
STEP_REPORTS, STEP_MS = 50_000, 250
POST_REPORTS = 500
SETTLE_SECONDS_MAX = 300.0


def rollout_entries(topics: Topics) -> list[Entry]:
    """Return a declared rollout with its notices, so that the detectors have something to watch."""
    name = rollout_id(VENDOR, PRODUCT, NEW_VERSION)
    rollout = Rollout(
        rollout=name,
        vendor=VENDOR,
        product=PRODUCT,
        update_kind="content",
        version=NEW_VERSION,
        origin_ms=START_MS,
        bound=Bound.OFFERED,
    )
    notice = RolloutNotice(rollout=name, vendor=VENDOR, product=PRODUCT, version=NEW_VERSION, origin_ms=START_MS)
    entries = [Entry(topics.name("rollouts"), 0, name.encode(), encoder.encode(rollout))]
    told = encoder.encode(notice)
    entries.extend(Entry(topics.name("activity"), number, None, told) for number in range(topics.device_partitions))
    return entries


def fill(folder: Path, topics: Topics, steps: int) -> list[bytes]:
    """Fill a log in `folder` with `steps` steps, and return the same reports as posts of 500: rows of JSON."""
    log = EmbeddedLog(folder / "log", topic_specs(topics), WallClock())
    traffic = Traffic(DEVICES)
    rows: list[bytes] = []
    log.append(rollout_entries(topics))
    for step in range(steps):
        at_ms = START_MS + (step + 1) * STEP_MS
        made = traffic.reports(STEP_REPORTS, at_ms)
        rows.extend(encoder.encode(part) for part in chunks(made, POST_REPORTS))
        log.append(entries_of(topics, "gateway-1", made, at_ms, at_ms))
    log.close()
    return rows


def plain_loop(rows: list[bytes]) -> float:
    """Decode, drop duplicates and count the reports in plain Python; return reports per second."""
    decoder = msgspec.json.Decoder(list[Report])
    seen: set[tuple[str, int]] = set()
    counts: Counter[tuple[str, ...]] = Counter()
    reports = 0
    started = time.perf_counter()
    for row in rows:
        for report in decoder.decode(row):
            reports += 1
            key = (report.device, report.seq)
            if key in seen:
                continue
            seen.add(key)
            cell: tuple[str, ...] = (report.os_build, report.form_factor, report.ring, report.tenant)
            if type(report) is not CheckIn:
                cell = (*cell, type(report).__name__)
            counts[cell] += 1
    return reports / (time.perf_counter() - started)


def drain(parts: Parts, warm_ms: int, until_ms: int) -> float:
    """Run pipeline and sink to the end of the log; return the seconds it took from `warm_ms` of event time on.

    Raises:
        RuntimeError: the pipeline failed or did not get there.
    """
    sink = parts.sink
    thread = threading.Thread(target=sink.drain) if sink is not None else None
    if sink is not None:
        sink.recover()
    gc.collect()
    gc.freeze()
    parts.pipeline.start()
    if thread is not None:
        thread.start()
    parts.pipeline.wait_counted(warm_ms, SETTLE_SECONDS_MAX)
    started = time.perf_counter()
    if not parts.pipeline.wait_reached(until_ms, SETTLE_SECONDS_MAX):
        raise RuntimeError(f"the pipeline did not reach the end of the log: {parts.pipeline.failure}")
    if thread is not None:
        thread.join()
    return time.perf_counter() - started


def _rate(store: bool) -> tuple[float, list[bytes]]:
    """Return reports per second once every device is known, and the reports as posts."""
    settings = Settings(lane="bench", store=store)
    topics = Topics(settings.lane, settings.device_partitions)
    warm, steps = DEVICES // STEP_REPORTS, (DEVICES + REPORTS) // STEP_REPORTS
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        rows = fill(Path(folder), topics, steps)
        parts = build(msgspec.structs.replace(settings, data_dir=folder), _raise)
        seconds = drain(parts, START_MS + warm * STEP_MS, START_MS + steps * STEP_MS)
        accepted = parts.metrics.value("grouped_total", outcome="accepted")
        if accepted != steps * STEP_REPORTS:
            raise RuntimeError(f"{accepted:.0f} of {steps * STEP_REPORTS} reports were counted")
        parts.pipeline.stop()
        if parts.reader is not None and parts.store is not None:
            parts.reader.close()
            parts.store.close()
        parts.log.close()
    return REPORTS / seconds, rows


def measure() -> list[Figure]:
    """Return the figures of log to verdict."""
    with_store, _ = _rate(store=True)
    without, rows = _rate(store=False)
    plain = plain_loop(rows)
    return [
        at_least("log to verdict, store off", without, "reports/s", 300_000),
        at_least("log to verdict, store on", with_store, "reports/s", 150_000),
        printed("plain decode-deduplicate-count loop, same reports", plain, "reports/s"),
        at_least("log to verdict, store off, against the plain loop", without / plain, "ratio", 0.6),
    ]


def _raise(error: BaseException) -> None:
    raise error
