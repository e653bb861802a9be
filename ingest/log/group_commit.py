"""Group commit: callers from many threads share one transaction, and so one fsync.

There is no writer thread. The first caller leads: it runs its own work and everything that queued up meanwhile in one
transaction, then hands the lead to the first who is still waiting. A lone caller therefore pays no thread switch, which
under a busy interpreter lock costs more than the fsync. The queue is bounded by the number of calling threads.

Invariant: a caller returns normally only after the COMMIT that holds its work was synced.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from ingest.log.interface import LogUnavailableError

T = TypeVar("T")
C = TypeVar("C")

UNITS_PER_COMMIT_MAX = 64
BYTES_PER_COMMIT_MAX = 32 << 20


class Unit(Generic[C]):
    """One caller's work: all of it is committed, or none."""

    __slots__ = ("_result", "_wake", "done", "error", "leads", "size_bytes", "work")

    def __init__(self, work: Callable[[C], object], size_bytes: int) -> None:
        """Hold `work`, which is given the transaction and may run more than once, each time in a fresh one."""
        self.work = work
        self.size_bytes = size_bytes
        self.done = False
        self.leads = False
        # Whatever ends the leader before it could settle this unit, the caller must not take for success.
        self.error: BaseException | None = LogUnavailableError("the append was interrupted: try again")
        self._result: Any = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def run(self, transaction: C) -> None:
        """Do the work in `transaction`."""
        self._result = self.work(transaction)

    def wait(self) -> None:
        """Block until the work is done or this caller is to lead."""
        self._wake.acquire()

    def wake(self) -> None:
        """End the caller's wait."""
        self._wake.release()

    def result(self) -> object:
        """Return what the work returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._result


class GroupCommit(Generic[C]):
    """Runs units in as few transactions as there is room for, in the order they came."""

    def __init__(self, execute: Callable[[Sequence[Unit[C]]], None]) -> None:
        """Run batches with `execute`, which sets the `error` of each unit to None when it is committed."""
        self._execute = execute
        self._mutex = threading.Lock()
        self._queue: deque[Unit[C]] = deque()
        self._led = False

    def submit(self, work: Callable[[C], T], size_bytes: int = 0) -> T:
        """Return what `work` returns, once it is committed; raise what it raises, with nothing of it committed."""
        unit: Unit[C] = Unit(work, size_bytes)
        with self._mutex:
            self._queue.append(unit)
            unit.leads = not self._led
            self._led = True
        if not unit.leads:
            try:
                unit.wait()
            except BaseException:
                self._abandon(unit)
                raise
        if not unit.done:
            self._lead()
        return cast(T, unit.result())

    def _lead(self) -> None:
        """Execute one batch, which begins with the leader's own unit, and pass the lead on."""
        with self._mutex:
            batch = self._take()
        try:
            self._execute(batch)
        finally:
            with self._mutex:
                for unit in batch:
                    unit.done = True
                self._pass_on()
            for unit in batch:
                if not unit.leads:
                    unit.wake()

    def _take(self) -> list[Unit[C]]:
        batch = [self._queue.popleft()]
        size_bytes = batch[0].size_bytes
        while self._queue and len(batch) < UNITS_PER_COMMIT_MAX:
            size_bytes += self._queue[0].size_bytes
            if size_bytes > BYTES_PER_COMMIT_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    def _pass_on(self) -> None:
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].wake()
        else:
            self._led = False

    def _abandon(self, unit: Unit[C]) -> None:
        """Withdraw a unit whose caller was interrupted while it waited; what was already begun stays begun."""
        with self._mutex:
            if unit in self._queue:
                self._queue.remove(unit)
                if unit.leads:
                    self._pass_on()
