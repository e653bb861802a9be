"""An Owner whose log was away during its start is started again, under the same claim, and loads everything once."""

import pytest

from ingest.clock import DrivenClock
from ingest.log.interface import Entry, Log, LogUnavailableError
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from support.counting_stage import SPECS, STATE, CountingStage


class FlakyOnce:
    """Passes everything on, but fails the first call of one kind."""

    def __init__(self, log: Log, call: str) -> None:
        self._log = log
        self._call = call

    def __getattr__(self, name: str) -> object:
        if name == self._call:
            self._call = ""

            def fail(*_: object, **__: object) -> None:
                raise LogUnavailableError(f"no {name} now, as a test ordered")

            return fail
        return getattr(self._log, name)


def drain(owner: Owner) -> None:
    while owner.step(0):
        pass


@pytest.mark.parametrize("call", ["bounds", "read", "committed"])
def test_an_owner_that_could_not_load_is_started_again_under_the_same_claim(call: str) -> None:
    """Wherever the log was away during the start, the second one loads everything, once."""
    clock = DrivenClock(1000)
    log = MemoryLog(SPECS, clock)
    first = CountingStage()
    owner = Owner(log, "counting", "counting", first, STATE, clock)
    owner.start()
    log.append([Entry("in", number % 2, None, b"%d" % (number % 10)) for number in range(40)])
    drain(owner)
    stage = CountingStage()
    flaky = FlakyOnce(log, call)
    again = Owner(flaky, "counting", "counting", stage, STATE, clock)  # type: ignore[arg-type]  # a log by getattr
    with pytest.raises(LogUnavailableError):
        again.start()
    fence = again.fence
    again.start()
    assert again.fence == fence
    drain(again)
    assert [stage.count(str(word)) for word in range(20)] == [first.count(str(word)) for word in range(20)]
