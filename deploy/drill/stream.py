"""The subscriber of a drill: what comes on the signed stream goes to the judge, with the moment it came."""

import threading
import time
from collections.abc import Callable

from deploy.drill.access import Access
from deploy.drill.client import counted_in
from deploy.drill.errors import DrillError
from deploy.drill.stop import Stop, pause
from detectors.drill_judge import Judge, Seen
from signals.client import ClientError, KillSwitchClient, Switch, SwitchError

CONNECT_SECONDS_MAX = 15.0
_CONNECTS_MAX = 8
_JOIN_SECONDS = 0.3


class Follower:
    """Follows one rollout's events from its first on, in a thread of its own.

    Attributes:
        lock: to be held by whoever else uses the judge.
        settled: set when an event has settled the drill.
    """

    def __init__(self, access: Access, rollout: str, judge: Judge, monotonic: Callable[[], float]) -> None:
        """Prepare; `start` subscribes.

        Args:
            access: where to subscribe, and whose signatures to believe.
            rollout: the drill's; the listener knows it.
            judge: gets the events.
            monotonic: tells the moment at which an event came, in seconds.
        """
        self.lock = threading.Lock()
        self.settled = threading.Event()
        self._judge = judge
        self._monotonic = monotonic
        self._open = threading.Event()
        self._closed = False
        self._why = ""
        self._client = KillSwitchClient(
            access.streams,
            access.keys,
            token=access.token,
            rollout=rollout,
            from_start=True,
            connects_max=_CONNECTS_MAX,
            on_connect=self._open.set,
        )
        self._thread = threading.Thread(target=self._read, name="drill-stream", daemon=True)

    def start(self, stop: Stop) -> None:
        """Subscribe; return once the stream is open.

        Raises:
            DrillError: it does not open, or the drill is to end.
        """
        self._thread.start()
        until = time.monotonic() + CONNECT_SECONDS_MAX
        while not self._open.is_set():
            pause(stop, 0.02)
            ended = self.settled.is_set() or time.monotonic() > until
            # An event that settles the drill may come in the moment the stream opens.
            if ended and not self._open.is_set():
                raise DrillError(f"the kill-switch stream does not open: {self._why or 'nothing answers'}")

    def close(self) -> None:
        """End the subscription."""
        self._closed = True
        self._client.close()
        # A read that waits for bytes ends with the next heartbeat; nobody need wait for that.
        self._thread.join(timeout=_JOIN_SECONDS)

    def _read(self) -> None:
        try:
            for switch in self._client.events():
                if self._take(switch):
                    break
        except SwitchError as error:
            self._end(self._judge.disbelieve, str(error))
        except ClientError as error:
            self._end(self._judge.lose, str(error))
        except Exception as error:
            # Closing the client under a read may raise whatever the transport likes; else it is a fault to tell of.
            if not self._closed:
                self._end(self._judge.lose, f"{type(error).__name__}: {error}")

    def _end(self, note: Callable[[str], None], why: str) -> None:
        with self.lock:
            self._why = why
            note(why)
        self.settled.set()

    def _take(self, switch: Switch) -> bool:
        at_seconds = self._monotonic()
        seen = Seen(
            state=switch.state.value,
            cause=switch.cause,
            dry_run=switch.dry_run,
            sentence=switch.sentence,
            counted=counted_in(switch.evidence),
        )
        with self.lock:
            self._judge.see(seen, at_seconds)
            settled = self._judge.settled
        if settled:
            self.settled.set()
        return settled
