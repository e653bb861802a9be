"""The alerts job: a thin shell round `AlertJudge`, in a thread of the process that has the store's data.

State and alerts are one append under a fence, so an alert is written exactly once, whenever the process is killed; the
state's own hour says where to go on. Invariants: one job writes at a time (whoever claims later fences the others); a
failure of any kind drops what is in memory and begins again from the log; nothing here ends the process.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from deploy.alerts import source
from detectors.alerts.judge import AlertJudge, JudgeState
from detectors.alerts.wire import STATE_NAME, STATUS_KEY, Alert
from detectors.chunks import StateError, gather, join, pack
from ingest.events import encoder
from ingest.log.interface import Entry, Fence, FencedError, Log, LogError, TopicPartition
from ingest.metrics import Metrics
from ingest.store.interface import StoreError
from ingest.topics import Topics

# Longer silences than what the store keeps raw rows for are passed over.
GAP_HOURS_MAX: Final = 30 * 24
# After another job has taken over, this one looks again whether it should run.
REST_SECONDS: Final = 60.0
_state_decoder = msgspec.msgpack.Decoder(JudgeState)

logger = logging.getLogger(__name__)


class AlertsJob:
    """Looks for patterns every so often; `run` in a thread, or `turn` by hand in tests."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        store: source.Rows,
        metrics: Metrics,
        *,
        every_seconds: float,
        may_run: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the collaborators; nothing is claimed or asked before the first turn.

        Args:
            log: where alerts and state lie.
            topics: of the lane.
            store: what is asked.
            metrics: counts alerts and failures.
            every_seconds: between two looks.
            may_run: whether this process should have the job now; asked before each look.
            monotonic: seconds.
        """
        self._log, self._store, self._metrics = log, store, metrics
        self._place = TopicPartition(topics.name("alerts"), 0)
        self._fence_name = f"alerts/{topics.lane}"
        self._every_seconds, self._may_run, self._monotonic = every_seconds, may_run, monotonic
        self._fence: Fence | None = None
        self._judge: AlertJudge | None = None
        self._pieces = 0
        self._writing = 0
        self._rest_until = 0.0
        self._stop = threading.Event()

    def run(self) -> None:
        """Look again and again until `stop`."""
        while not self._stop.wait(self._every_seconds):
            self.turn()

    def stop(self) -> None:
        """End soon, between two hours; safe from any thread."""
        self._stop.set()

    def turn(self) -> None:
        """Judge every hour that is complete and was not judged; what fails is told, counted and tried again."""
        if not self._may_run():
            if self._fence is not None:
                self._metrics.set("alerts_open", 0)
            self._let_go()
            return
        if self._monotonic() < self._rest_until:
            return
        try:
            self._load()
            while not self._stop.is_set() and self._advance():
                pass
        except FencedError:
            logger.info("another process looks for crash patterns now")
            self._rest_until = self._monotonic() + REST_SECONDS
            self._let_go()
        except (StoreError, LogError, StateError) as error:
            logger.warning("could not look for crash patterns, trying again: %s", error)
            self._failed()
        except Exception:
            # People lose a look at patterns by it; the process has more important things to do than to end.
            logger.exception("could not look for crash patterns, trying again")
            self._failed()

    def _failed(self) -> None:
        self._metrics.count("alerts_failures_total")
        self._let_go()

    def _let_go(self) -> None:
        self._judge = self._fence = None

    def _load(self) -> None:
        """Claim the job and take up the state in the log."""
        if self._fence is not None:
            return
        fence = self._log.claim(self._fence_name)
        latest = dict(_latest(self._log, self._place))
        chunks = gather(item for item in latest.items() if item[0].startswith(f"{STATE_NAME}/".encode()))
        found = chunks.get(STATE_NAME)
        if found:
            self._judge = AlertJudge.restore(_state_decoder.decode(join(STATE_NAME, found)))
            self._writing, self._pieces = found[0].writing, max(found) + 1
            self._metrics.set("alerts_open", self._judge.book.open_count)
            self._metrics.set("alerts_judged_timestamp", self._judge.next_hour * 3600)
        self._fence = fence

    def _advance(self) -> bool:
        """Judge the next hours, a day at most, and write what came of it; tell whether there may be more."""
        until = source.complete_until(self._store)
        if self._judge is None:
            first = source.first_hour(self._store)
            if first is None:
                return False
            self._judge = AlertJudge(max(first, until - GAP_HOURS_MAX))
        judge = self._judge
        begin = max(judge.next_hour, until - GAP_HOURS_MAX)
        end = min(until, begin + source.HOURS_AT_ONCE)
        if begin >= end:
            return False
        rows = source.hours(self._store, begin, end)
        # By id: what is written twice in a day needs to be read once only.
        written: dict[str, Alert] = {}
        for hour in range(begin, end):
            if self._stop.is_set():
                break
            for alert in source.judge_hour(self._store, judge, hour, rows.get(hour, [])):
                written[alert.alert] = alert
                self._metrics.count("alerts_written_total", state=alert.state.value)
        self._write(judge, written.values())
        return end < until

    def _write(self, judge: AlertJudge, alerts: Iterable[Alert]) -> None:
        entries = [self._entry(alert.alert.encode(), encoder.encode(alert)) for alert in alerts]
        entries += [self._entry(name.encode(), None) for name in judge.book.forget(judge.next_hour)]
        status = judge.status()
        entries.append(self._entry(STATUS_KEY, encoder.encode(status)))
        self._writing += 1
        packed = pack(STATE_NAME, judge.snapshot(), self._writing, {})
        entries += [self._entry(key, value) for key, value in packed]
        entries += [self._entry(f"{STATE_NAME}/{index}".encode(), None) for index in range(len(packed), self._pieces)]
        self._log.append(entries, self._fence)
        self._pieces = len(packed)
        self._metrics.set("alerts_open", status.open)
        self._metrics.set("alerts_judged_timestamp", status.at_ms / 1000)

    def _entry(self, key: bytes, value: bytes | None) -> Entry:
        return Entry(self._place.topic, self._place.partition, key, value)


def _latest(log: Log, place: TopicPartition) -> Iterable[tuple[bytes, bytes]]:
    """Return the latest value of each key in a compacted partition."""
    latest: dict[bytes, bytes] = {}
    offset, end = log.bounds(place)
    while offset < end:
        records = log.read(place, offset)
        if not records:
            break
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                latest.pop(record.key, None)
            else:
                latest[record.key] = record.value
        offset = records[-1].offset + 1
    return latest.items()
