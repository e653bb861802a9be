"""Ending a drill early: the process that runs it may be asked to end at any moment."""

from typing import Protocol

from deploy.drill.errors import DrillError


class Stop(Protocol):
    """Whether to give up; a `threading.Event` is one."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most so many seconds; return whether to give up."""
        ...


def pause(stop: Stop, seconds: float) -> None:
    """Wait so many seconds, not at all for 0.

    Raises:
        DrillError: the drill is to end.
    """
    if stop.wait(seconds):
        raise DrillError("the drill was asked to end before it was settled")
