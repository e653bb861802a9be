"""The peers by name."""

from collections.abc import Callable
from typing import Final

from detectors.backtest.peers.crashlytics import Crashlytics
from detectors.backtest.peers.ewma import Ewma
from detectors.backtest.peers.failure_limit import argo_rollouts, flagger
from detectors.backtest.peers.gandalf import Gandalf
from detectors.backtest.peers.isolation_forest import IsolationForestRates
from detectors.backtest.peers.kayenta import Kayenta
from detectors.backtest.peers.multinomial import Multinomial
from detectors.backtest.peers.peer import Peer
from detectors.backtest.peers.play_vitals import PlayVitals
from detectors.backtest.peers.prometheus import Prometheus
from detectors.backtest.peers.sentry import Sentry

PEERS: Final[tuple[Callable[[], Peer], ...]] = (
    Crashlytics,
    PlayVitals,
    Sentry,
    Kayenta,
    argo_rollouts,
    flagger,
    Gandalf,
    Prometheus,
    Multinomial,
    Ewma,
    IsolationForestRates,
)


def names() -> list[str]:
    """Return the peers' names, in the order of `PEERS`."""
    return [make().name for make in PEERS]


def peer(name: str) -> Peer:
    """Return the peer of that name.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    for make in PEERS:
        one = make()
        if one.name == name:
            return one
    raise KeyError(f"no peer {name!r}: choose one of {', '.join(names())}")
