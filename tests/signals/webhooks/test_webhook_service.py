"""Webhooks as a process runs them: real posts, hanging receivers, restarts, two owners, dead letters, redelivery."""

import pytest

from detectors.scope import Scope
from signals.delivery.wanted import Drills
from signals.delivery.webhooks import lane as lanes
from signals.delivery.webhooks.desk import Wanted
from signals.delivery.webhooks.view import UnknownWebhookError
from support.streams import eventually
from support.switches import ROLLOUT
from support.webhook_rig import webhooks

OTHER = "r-other"


def ids(*numbers: int, rollout: str = ROLLOUT) -> list[str]:
    return [f"{rollout}/{number}" for number in numbers]


def test_events_arrive_verified_in_order_and_once() -> None:
    with webhooks() as rig:
        rig.decide()
        rig.subscribe("a")
        rig.decide(times=20)
        eventually(lambda: len(rig.receiver.got["a"]) == 20, 20)
        assert rig.receiver.numbers["a"] == list(range(2, 22))
        assert rig.metrics.value("webhook_attempts_total", outcome="delivered") == 20


def test_a_subscription_may_begin_with_the_first_event_ever() -> None:
    with webhooks() as rig:
        rig.decide(times=150)
        rig.subscribe("a", start="start")
        eventually(lambda: len(rig.receiver.got["a"]) == 150, 20)
        assert rig.receiver.numbers["a"] == list(range(1, 151))


def test_filters_bring_what_was_asked_for() -> None:
    with webhooks() as rig:
        rig.subscribe("rollout", rollouts=[OTHER])
        rig.subscribe("product", products=["acme/driver"])
        rig.subscribe("scope", scope=Scope(ring="canary"))
        rig.subscribe("drills", drills=Drills.ONLY)
        rig.subscribe("all", drills=Drills.INCLUDE)
        rig.decide(OTHER)
        rig.decide("r-driver", product="acme/driver")
        rig.decide("r-ring", scope=Scope(ring="broad"))
        rig.decide("r-drill", product="cordon/drill")
        eventually(lambda: len(rig.receiver.got["all"]) == 4 and len(rig.receiver.got["scope"]) == 2, 20)
        got = {path: sorted(found) for path, found in rig.receiver.got.items()}
        assert got["rollout"] == [f"{OTHER}/1"]
        assert got["product"] == ["r-driver/1"]
        assert got["scope"] == ["r-driver/1", f"{OTHER}/1"]
        assert got["drills"] == ["r-drill/1"]


def test_a_receiver_that_hangs_delays_nobody_and_catches_up_when_it_is_back() -> None:
    with webhooks(timeout_seconds=0.5) as rig:
        for number in range(5):
            rig.subscribe(f"hanging-{number}")
            rig.receiver.status[f"hanging-{number}"] = -2
        rig.subscribe("well")
        rig.decide(times=10)
        eventually(lambda: len(rig.receiver.got["well"]) == 10, 20)
        assert all(len(rig.receiver.got[f"hanging-{number}"]) <= 2 for number in range(5))
        rig.receiver.status.clear()
        for number in range(5):
            path = f"hanging-{number}"
            eventually(lambda path=path: len(set(rig.receiver.got[path])) == 10, 20)  # type: ignore[misc]
            seen = list(dict.fromkeys(rig.receiver.numbers[path]))
            assert seen == list(range(1, 11))


def test_a_restart_neither_loses_nor_skips_and_repeats_only_what_was_not_written_down() -> None:
    with webhooks() as rig:
        name = rig.subscribe("a")
        rig.receiver.status["a"] = 500
        rig.decide(times=3)
        eventually(lambda: len(rig.receiver.got["a"]) >= 1, 20)
        rig.services.pop().stop()
        rig.decide(times=3)
        rig.receiver.status.clear()
        before = len(rig.receiver.got["a"])
        service = rig.service()
        eventually(lambda: len(set(rig.receiver.got["a"])) == 6, 20)
        assert rig.receiver.got["a"][before:] == ids(1, 2, 3, 4, 5, 6)
        eventually(lambda: service.desk.view.get(name).delivered == 6, 20)
        rig.services.pop().stop()
        rig.service()
        rig.decide()
        eventually(lambda: len(set(rig.receiver.got["a"])) == 7, 20)
        assert rig.receiver.got["a"][before:] == ids(1, 2, 3, 4, 5, 6, 7)


def test_of_two_owners_the_older_one_ends_and_receivers_can_tell_a_repetition_by_its_id() -> None:
    with webhooks() as rig:
        rig.subscribe("a")
        rig.decide(times=5)
        first = rig.services[-1]
        # It goes on believing that it owns the partition.
        rig.service()
        rig.decide(times=5)
        eventually(lambda: 0 not in first._running, 20)
        rig.decide(times=5)
        eventually(lambda: len(set(rig.receiver.got["a"])) == 15, 20)
        assert list(dict.fromkeys(rig.receiver.got["a"])) == ids(*range(1, 16))


def test_dead_letters_are_listed_and_delivered_again_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BACKOFF_MS", 20)
    with webhooks() as rig:
        name = rig.subscribe("a")
        view = rig.services[-1].desk.view
        rig.receiver.status["a"] = 400
        rig.decide(times=2)
        eventually(lambda: len(view.dead(name)) == 2, 20)
        assert [(letter.event_id, letter.word, letter.tries) for letter in view.dead(name)] == [
            (f"{ROLLOUT}/1", "rejected", 5),
            (f"{ROLLOUT}/2", "rejected", 5),
        ]
        rig.receiver.status.clear()
        rig.decide()
        eventually(lambda: rig.receiver.got["a"][-1:] == ids(3), 20)
        # Over a restart as well.
        rig.services.pop().stop()
        desk = rig.service().desk
        with pytest.raises(UnknownWebhookError, match="no dead letter"):
            desk.redeliver(name, "r-typo/1")
        assert desk.redeliver(name, f"{ROLLOUT}/2") == 1
        eventually(lambda: [letter.event_id for letter in desk.view.dead(name)] == ids(1), 20)
        assert desk.redeliver(name) == 1
        eventually(lambda: not desk.view.dead(name), 20)
        assert rig.receiver.got["a"][-3:] == ids(3, 2, 1)


def test_410_disables_and_enabling_sends_what_was_missed() -> None:
    with webhooks() as rig:
        name = rig.subscribe("a")
        desk = rig.services[-1].desk
        rig.receiver.status["a"] = 410
        rig.decide(times=2)
        eventually(lambda: desk.view.get(name).disabled == "gone", 20)
        assert rig.receiver.got["a"] == ids(1)
        rig.receiver.status.clear()
        desk.change(name, Wanted(enabled=True))
        eventually(lambda: rig.receiver.got["a"] == ids(1, 1, 2), 20)
        assert desk.view.get(name).disabled == ""


def test_a_rotated_secret_signs_at_once_beside_the_one_before() -> None:
    with webhooks() as rig:
        name = rig.subscribe("a")
        rig.decide()
        eventually(lambda: len(rig.receiver.got["a"]) == 1, 20)
        secret = rig.services[-1].desk.rotate(name)
        assert secret != rig.receiver.secrets["a"]
        rig.decide()
        eventually(lambda: len(rig.receiver.got["a"]) == 2, 20)
        rig.receiver.secrets["a"] = secret
        rig.decide()
        eventually(lambda: len(rig.receiver.got["a"]) == 3, 20)
        assert rig.receiver.numbers["a"] == [1, 2, 3]


def test_a_removed_subscription_gets_nothing_more_and_leaves_nothing_behind() -> None:
    with webhooks() as rig:
        name = rig.subscribe("a")
        rig.subscribe("b")
        rig.decide()
        eventually(lambda: len(rig.receiver.got["a"]) == 1, 20)
        desk = rig.services[-1].desk
        eventually(lambda: desk.view.get(name).delivered == 1, 20)
        desk.remove(name)
        rig.decide()
        eventually(lambda: len(rig.receiver.got["b"]) == 2, 20)
        assert len(rig.receiver.got["a"]) == 1
        eventually(lambda: all(place.subscription != name for place in desk.view._places.values()), 20)


def test_a_log_that_is_away_only_delays() -> None:
    with webhooks() as rig:
        name = rig.subscribe("a")
        rig.decide(times=3)
        eventually(lambda: len(rig.receiver.got["a"]) == 3, 20)
        rig.log.refuse_next_append()
        rig.log.lose_next_acknowledgement()
        view = rig.services[-1].desk.view
        eventually(lambda: view.get(name).delivered == 3, 20)
        rig.decide(times=3)
        eventually(lambda: rig.receiver.got["a"] == ids(*range(1, 7)), 20)
        assert rig.metrics.value("webhook_failures_total") == 0


def test_partitions_are_delivered_by_whoever_owns_them() -> None:
    with webhooks(partitions=2) as rig:
        owned = {1}
        rig.services.pop().stop()
        service = rig.service(lambda: owned)
        rig.subscribe("a")
        rig.decide("r-zero", 0)
        rig.decide("r-one", 1)
        eventually(lambda: rig.receiver.got["a"] == ["r-one/1"], 20)
        owned.add(0)
        eventually(lambda: sorted(rig.receiver.got["a"]) == ["r-one/1", "r-zero/1"], 20)
        owned.clear()
        eventually(lambda: not service._running, 20)


def test_the_metrics_say_what_is_queued_and_for_how_long() -> None:
    with webhooks() as rig:
        rig.subscribe("a")
        rig.receiver.status["a"] = 500
        rig.decide(times=3)
        eventually(lambda: rig.metrics.value("webhook_queue_events", partition="0") == 3, 20)
        eventually(lambda: rig.metrics.value("webhook_oldest_seconds", partition="0") > 0.5, 20)
        rig.receiver.status.clear()
        eventually(lambda: rig.metrics.value("webhook_queue_events", partition="0") == 0, 20)
        assert rig.metrics.value("webhook_oldest_seconds", partition="0") == 0
