"""The driver against a gateway that refuses and forgets: nothing lost, order kept, same losses at any speed."""

import httpx2
import msgspec
import pytest

from deploy.replay.client import GatewayClient, ReplayError
from deploy.replay.driver import Replay
from deploy.replay.result import Moment, ReplayResult
from deploy.replay.subscription import Pace
from detectors.backtest.fleet import Fleet
from detectors.backtest.scenario import Scenario
from signals.events import SwitchState
from support.replay_gateway import FakeGateway, FakeSubscription
from support.scenarios import SMALL, decoded, run_through, small

DECLARED = SMALL.replace('version = "291"', 'version = "291"\ndeclare = "rules"').replace(
    'rings = [{ name = "*", over_seconds = 600 }]',
    'rings = [{ name = "canary" }, { name = "broad", starts_after_seconds = 300, over_seconds = 600 }]',
)


def replayed(
    gateway: FakeGateway, scenario: Scenario | None = None, *, kill_switch: bool = True, pace: Pace | None = None
) -> ReplayResult:
    client = GatewayClient(gateway.client(), sleep=lambda seconds: None)
    run = Replay(scenario or small(), client, FakeSubscription(gateway), kill_switch=kill_switch, pace=pace)
    return run.run()


def test_everything_arrives_in_order_and_the_clock_follows() -> None:
    gateway = FakeGateway()
    result = replayed(gateway)
    assert gateway.seen == run_through(Fleet(small()))
    assert result.reports == result.accepted == len(gateway.seen)
    scenario = small()
    assert [at_ms for at_ms, _ in gateway.clock_posts] == list(range(scenario.start_ms, scenario.end_ms + 1, 5000))
    # The stages have dealt with all but `reaction - step` before the next step is simulated, and with all at the end.
    assert all(wait_for_ms == at_ms - 5000 for at_ms, wait_for_ms in gateway.clock_posts[1:-1])
    assert gateway.clock_posts[-1] == (scenario.end_ms, scenario.end_ms)
    assert (result.state, result.killed_ms, result.as_expected) == (None, None, False)


@pytest.mark.parametrize("seed", range(3))
def test_refused_and_unanswered_posts_are_posted_again_until_all_is_there(seed: int) -> None:
    scenario = small(duration_seconds=1200.0)
    gateway = FakeGateway(refusals=0.3, seed=seed)
    result = replayed(gateway, scenario)
    once = run_through(Fleet(scenario))
    assert result.retries > 50
    assert result.accepted == len(once)
    # Posts whose answer got lost arrive twice; in the order of first arrival nothing is missing or moved.
    position = {body: index for index, body in reversed(list(enumerate(gateway.seen)))}
    assert [body for body in dict.fromkeys(once) if body not in position] == []
    first = [position[body] for body in dict.fromkeys(once)]
    assert first == sorted(first)


def test_patience_ends_with_an_error_and_waits_as_told() -> None:
    waits: list[float] = []
    client = GatewayClient(FakeGateway(refusals=2.0).client(), patience_seconds=20, sleep=waits.append)
    with pytest.raises(ReplayError, match="gave up after"):
        client.drive(small().start_ms, None)
    assert set(waits) <= {0.5, 1.0, 2.0}


def test_posts_carry_at_most_two_thousand_reports() -> None:
    gateway = FakeGateway()
    body = run_through(Fleet(small(duration_seconds=700.0)))[0]
    GatewayClient(gateway.client()).post_reports([body] * 4500)
    assert gateway.sizes == [2000, 2000, 500]


def test_throttled_reports_of_a_post_are_posted_again_and_other_refusals_are_counted() -> None:
    bodies = run_through(Fleet(small(duration_seconds=700.0)))[:5]
    posted: list[list[bytes]] = []

    class Choosy(FakeGateway):
        def _reports(self, body: bytes) -> httpx2.Response:
            raw = msgspec.json.decode(body, type=list[msgspec.Raw])
            posted.append([bytes(each) for each in raw])
            refused = [{"index": 1, "reason": "throttled"}, {"index": 3, "reason": "too_old"}] if len(raw) == 5 else []
            return httpx2.Response(202, json={"accepted": len(raw) - len(refused), "refused": refused})

    client = GatewayClient(Choosy().client(), sleep=lambda seconds: None)
    client.post_reports(bodies)
    assert posted == [bodies, [bodies[1]]]
    assert client.accepted == 4
    assert client.refused == {"too_old": 1}


def test_a_refusal_for_good_ends_the_replay_with_its_words() -> None:
    class LiveLane(FakeGateway):
        def _clock(self, body: bytes) -> httpx2.Response:
            return httpx2.Response(403, json={"reason": "forbidden", "detail": "the live lane goes by the wall clock"})

    with pytest.raises(ReplayError, match=r"403.*the live lane goes by the wall clock"):
        replayed(LiveLane())


def test_a_kill_stops_pushes_and_saves_devices() -> None:
    with_switch = replayed(FakeGateway(kill_at_crashes=5))
    without = replayed(FakeGateway(kill_at_crashes=5), kill_switch=False)
    assert without.lost > 2 * with_switch.lost > 0
    assert with_switch.as_expected
    assert with_switch.state is SwitchState.KILLED
    assert with_switch.killed_ms is not None
    assert with_switch.stopped_ms == with_switch.killed_ms + 10_000
    assert with_switch.seconds_first_crash_to_kill is not None
    assert with_switch.seconds_first_crash_to_kill > 0
    assert without.stopped_ms is None
    # Until the stop the two runs are one: same first crash, and the kill is decided at the same moment.
    assert (without.first_crash_ms, without.killed_ms) == (with_switch.first_crash_ms, with_switch.killed_ms)


def test_losses_do_not_depend_on_when_within_the_reaction_the_event_arrives() -> None:
    eager = replayed(FakeGateway(kill_at_crashes=5, eager=True))
    lazy_gateway = FakeGateway(kill_at_crashes=5, eager=False)
    lazy = replayed(lazy_gateway)
    assert (eager.lost, eager.pushed, eager.stopped_ms) == (lazy.lost, lazy.pushed, lazy.stopped_ms)
    assert lazy.late_ms == eager.late_ms == 0


def test_rollouts_are_declared_before_their_first_ring() -> None:
    gateway = FakeGateway()
    scenario = small(DECLARED)
    replayed(gateway, scenario)
    ((at_ms, declaration),) = gateway.declared
    assert at_ms == scenario.rollout_ms - 60_000
    assert [ring.name for ring in declaration.rings] == ["canary", "broad"]


def test_progress_is_told_every_minute_and_at_the_end() -> None:
    gateway, moments = FakeGateway(kill_at_crashes=5), list[Moment]()
    client = GatewayClient(gateway.client())
    result = Replay(small(), client, FakeSubscription(gateway), progress=moments.append).run()
    assert [moment.minute for moment in moments] == [float(minute) for minute in range(-9, 51)]
    assert moments[-1].truth.lost == result.lost
    assert moments[-1].reports == result.reports
    assert [moment.state for moment in moments][:10] == [None] * 10
    assert moments[-1].state is SwitchState.KILLED
    assert moments[-1].crash_reports >= 5
    assert msgspec.json.decode(msgspec.json.encode(result), type=ReplayResult) == result


def test_the_pace_holds_event_time_back_to_the_speed() -> None:
    now, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    result = replayed(FakeGateway(), pace=Pace(60.0, timer=lambda: now[0], sleep=sleep))
    assert result.wall_seconds == pytest.approx(60.0)
    assert len(slept) == 720
    with pytest.raises(ReplayError, match="speed 0"):
        Pace(0.0)


def test_what_the_fake_saw_is_what_a_gateway_decodes() -> None:
    gateway = FakeGateway()
    replayed(gateway, small(duration_seconds=1000.0))
    assert decoded(gateway.seen) == gateway.reports
