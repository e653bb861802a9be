"""That no peer is ahead of Cordon without a wrong kill: each kills an innocent update somewhere in the library."""

import pytest

from detectors.backtest.cohort import simulate
from detectors.backtest.expectations import judged
from detectors.backtest.library import load
from detectors.backtest.peers.registry import names, peer
from detectors.backtest.score import run_peer

# The scenario, of those in which a peer kills wrongly, that is simulated fastest.
WHERE = {
    "flood-false-crashes": (
        "crashlytics-velocity", "play-vitals", "sentry-crash-rate", "argo-rollouts", "flagger", "gandalf",
        "prometheus-rate", "multinomial-anytime", "ewma-3-sigma",
    ),
    "latent-faults": ("kayenta-mann-whitney",),
    "activity-lag": ("isolation-forest",),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WHERE))
def test_each_of_these_peers_kills_an_innocent_update_here(name: str) -> None:
    scenario = load(name)
    trace = simulate(scenario)
    wrong = {one: judged(scenario.truth, run_peer(trace, peer(one))).wrong_kills for one in WHERE[name]}
    assert all(wrong.values()), wrong


def test_every_peer_is_among_them() -> None:
    assert sorted(one for peers in WHERE.values() for one in peers) == sorted(names())
