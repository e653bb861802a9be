"""A data folder as a large fleet leaves it, for the benches of the console: made before Cordon runs on it.

Two hundred rollouts with verdicts in the log; in the store a day of what 8.5 million devices say, as far as the console
reads it: minutes of check-ins and crashes, an incident among them, and two thousand verdicts of each rollout.
"""

from collections.abc import Iterator
from pathlib import Path
from string import Template

from detectors.verdict import DecisionWord, Evidence, Method, Reason, Verdict, VerdictWord
from ingest.clock import WallClock
from ingest.events import encoder
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.specs import topic_specs
from ingest.rollouts import Bound, Rollout
from ingest.store.chdb import ChdbStore
from ingest.store.interface import database_of
from ingest.store.migrate import Migrator
from ingest.topics import LIVE_LANE, Topics

ROLLOUTS, DEVICES, HOURS = 200, 8_500_000, 24
CHECK_IN_SECONDS = 300
# Three rings and six OS builds in each tenant and partition, as the statements have it.
TENANTS, PARTITIONS = 12, 8
CRASHES, VERDICTS_EACH = 400_000, 2_000
STATEMENTS = Path(__file__).parent / "console_store"


def rollout_of(number: int) -> str:
    """Return a rollout's id."""
    return f"r-{number:016x}"


def fill(data: Path) -> None:
    """Fill a data folder that nobody uses."""
    data.mkdir(parents=True, exist_ok=True)
    now_ms = WallClock().now_ms()
    topics = Topics(LIVE_LANE, PARTITIONS)
    log = EmbeddedLog(data / "log", topic_specs(topics), WallClock())
    try:
        for number in range(ROLLOUTS):
            key, said = rollout_of(number).encode(), _verdict(number, now_ms)
            log.append(
                [
                    Entry(topics.name("rollouts"), 0, key, encoder.encode(_closed(said))),
                    Entry(topics.name("verdicts"), 0, key, encoder.encode(said)),
                ]
            )
    finally:
        log.close()
    store = ChdbStore(data / "store", database_of(LIVE_LANE))
    try:
        Migrator(store).apply()
        for statement in _statements(now_ms // 60_000 * 60):
            store.execute(statement)
    finally:
        store.close()


def _closed(said: Verdict) -> Rollout:
    """Return the rollout of a verdict, closed: detection leaves its verdict as it is, and people may still hold it."""
    return Rollout(
        rollout=said.rollout,
        vendor=said.vendor,
        product=said.product,
        update_kind="driver",
        version=said.version,
        origin_ms=said.at_ms - HOURS * 3_600_000,
        bound=Bound.DECLARED,
        closed=True,
    )


def _verdict(number: int, at_ms: int) -> Verdict:
    rising = number % 20 == 0
    return Verdict(
        rollout=rollout_of(number),
        vendor=f"vendor-{number % 17}",
        product=f"driver-{number}",
        version=f"31.0.{number}.7",
        at_ms=at_ms - number * 100,
        verdict=VerdictWord.WATCHING if rising else VerdictWord.HEALTHY,
        decision=DecisionWord.PROCEED,
        reason=Reason.EVIDENCE_RISING if rising else Reason.NO_HARM_SEEN,
        sentence=f"evidence 10^1.2 of 10^6.0 needed to kill: {number % 9} exposed and 18 control crashes",
        evidence=Evidence(
            log10_evidence=1.0,
            log10_evidence_max=1.2,
            log10_needed_to_hold=3.0,
            log10_needed_to_kill=6.0,
            tolerated_ratio=1.5,
            methods=[Method(name="rate_ratio", log10_evidence=1.2, weight=0.5, events_exposed=number % 9)],
            crashes_exposed=number % 9,
            crashes_control=18,
            exposed=40_000,
            at_risk_exposed=39_000,
            at_risk_control=8_000_000,
            rate_ratio=1.3,
            rate_ratio_low=0.7,
            rate_ratio_high=2.2,
            tenants=9,
            signatures=[("nvlddmkm.sys|0x50", number % 9)],
        ),
        policy="sha256:00",
    )


def _statements(end: int) -> Iterator[str]:
    each = 18 * TENANTS * PARTITIONS
    words = {
        "end": end, "each": each, "tenants": TENANTS, "partitions": PARTITIONS, "minutes": HOURS * 60,
        "check_ins": DEVICES * 60 // CHECK_IN_SECONDS // each, "crashes": CRASHES, "rollouts": ROLLOUTS,
        "verdicts_each": VERDICTS_EACH,
    }  # fmt: skip
    for path in sorted(STATEMENTS.glob("*.sql")):
        yield Template(path.read_text(encoding="utf-8")).substitute(words)
