"""The latest lease of each rollout as bytes of the stream, for subscribers that ask for leases.

Beside the hub's frames, on its event loop. A lease replaces the one before it, so a subscriber that is slow gets fewer
of them and is not cut for it. Invariants: bounded, the rollouts whose leases are oldest go first; and a subscriber gets
the latest lease of every rollout that it wants, once.
"""

from collections import OrderedDict

from signals.delivery.wanted import Wanted, is_drill_envelope

ROLLOUTS_MAX = 50_000


class LatestLeases:
    """Lease frames by rollout, ordered by when they came."""

    def __init__(self, rollouts_max: int = ROLLOUTS_MAX) -> None:
        """Begin with none."""
        self._rollouts_max = rollouts_max
        self._frames: OrderedDict[bytes, tuple[int, bytes, bool]] = OrderedDict()
        self.head = 0

    def put(self, rollout: bytes, envelope: bytes | None) -> None:
        """Take a rollout's latest lease; None takes it away."""
        self._frames.pop(rollout, None)
        if envelope is None:
            return
        data = b"".join(b"data: %s\n" % line for line in envelope.splitlines())
        self._frames[rollout] = self.head, b"event: lease\n%s\n" % data, is_drill_envelope(envelope)
        self.head += 1
        while len(self._frames) > self._rollouts_max:
            self._frames.popitem(last=False)

    def since(self, position: int, wanted: Wanted) -> list[bytes]:
        """Return the leases that came at `position` or later, oldest first."""
        if wanted.rollout is not None:
            found = self._frames.get(wanted.rollout)
            return [found[1]] if found is not None and found[0] >= position else []
        frames: list[bytes] = []
        for rollout, (number, frame, drill) in reversed(self._frames.items()):
            if number < position:
                break
            if wanted.takes(rollout, drill):
                frames.append(frame)
        frames.reverse()
        return frames
