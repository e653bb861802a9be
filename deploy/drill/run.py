"""One drill through a running Cordon: prepare, crash, listen, judge.

Everything goes over HTTP and everything comes back over the signed stream, as with real devices and a real rollout
system. What fails before the first crash is a drill that could not be run; what fails after it is a failed drill.
"""

import secrets
import threading
import time
from collections.abc import Sequence

from deploy.drill.access import Access
from deploy.drill.client import DrillClient, RolloutWord
from deploy.drill.errors import DrillError
from deploy.drill.stop import Stop, pause
from deploy.drill.stream import Follower
from detectors.drill import TENANTS, DrillPlan, is_drill, started_ms_of
from detectors.drill_judge import DrillResult, Judge
from ingest.clock import Clock
from ingest.endpoint.post import PostError

KNOWN_SECONDS_MAX = 15.0
# A token made a moment ago is known to each process once it has read the file again, every second at least.
ADMITTED_SECONDS_MAX = 3.0
_POLL_SECONDS = 0.1


def new_plan(clock: Clock, limit_seconds: float = 60.0) -> DrillPlan:
    """Return the plan of a drill that begins now."""
    return DrillPlan(started_ms=clock.now_ms(), mark=secrets.token_hex(2), limit_seconds=limit_seconds)


def run_drill(access: Access, plan: DrillPlan, clock: Clock, stop: Stop | None = None) -> DrillResult:
    """Run one drill and return how it went.

    Args:
        access: how to get at Cordon.
        plan: the drill, of a start that is now.
        clock: the wall clock, for the event time of crashes; how long things took is measured by a monotonic one.
        stop: ends the drill early.

    Raises:
        DrillError: it could not be run, so nothing is known of the switch.
    """
    stop = stop if stop is not None else threading.Event()
    client = DrillClient(access)
    try:
        _wait_admitted(client, plan, stop)
        _refuse_company(client.rollouts(), plan)
        client.prepare(plan.check_ins())
        client.declare(plan.declaration())
        client.prepare(plan.offers())
        _wait_known(client, plan, stop)
        judge = Judge(plan)
        follower = Follower(access, plan.rollout, judge, time.monotonic)
        try:
            follower.start(stop)
            _crash(client, plan, judge, follower, clock, stop)
            last = client.last_word(plan.rollout)
            with follower.lock:
                return judge.result(last)
        finally:
            follower.close()
    finally:
        client.close()


def last_passed_ms(rollouts: Sequence[RolloutWord]) -> int | None:
    """Return when the latest drill began that the detector killed; None without one among these."""
    starts = [
        started_ms_of(one.version) or 0
        for one in rollouts
        if is_drill(one.vendor, one.product) and one.killed and one.decided_by == "detector"
    ]
    return max(starts, default=0) or None


def _refuse_company(rollouts: Sequence[RolloutWord], plan: DrillPlan) -> None:
    """Refuse to run beside another drill: both have the same devices, and would spoil each other.

    Two that begin in the same second don't see each other; both may fail then.
    """
    for one in rollouts:
        started_ms = started_ms_of(one.version) if is_drill(one.vendor, one.product) else None
        if started_ms is None or one.killed:
            continue
        busy_ms = started_ms + int((plan.settle_seconds + plan.limit_seconds) * 1000) - plan.started_ms
        if 0 < busy_ms <= (plan.settle_seconds + plan.limit_seconds) * 1000 + 1000:
            raise DrillError(f"drill {one.version} is still running: try again in {busy_ms / 1000:.0f} s")


def _wait_admitted(client: DrillClient, plan: DrillPlan, stop: Stop) -> None:
    until = time.monotonic() + ADMITTED_SECONDS_MAX
    while not client.admitted(plan.rollout):
        if time.monotonic() > until:
            raise DrillError(
                "the drill's token is refused by the gateway or the streams listener: it needs the roles report and "
                f"rollout and the tenants {TENANTS[0]} to {TENANTS[-1][-1]} (deploy/drill/README.md has the command)"
            )
        pause(stop, _POLL_SECONDS)


def _wait_known(client: DrillClient, plan: DrillPlan, stop: Stop) -> None:
    until = time.monotonic() + KNOWN_SECONDS_MAX
    while not client.knows(plan.rollout):
        if time.monotonic() > until:
            raise DrillError(
                f"the gateway took the drill's rollout {plan.rollout}, but the streams listener does not know it after "
                f"{KNOWN_SECONDS_MAX:g} s: are both of one installation and lane, and does the log take records?"
            )
        pause(stop, _POLL_SECONDS)


def _crash(client: DrillClient, plan: DrillPlan, judge: Judge, follower: Follower, clock: Clock, stop: Stop) -> None:
    """Post the crashes at the plan's pace until the drill is settled, then wait until it is or the time is out."""
    pause(stop, plan.settle_seconds)
    begun = time.monotonic()
    for number in range(plan.exposed):
        if follower.settled.wait(max(0.0, begun + number * plan.pace_seconds - time.monotonic())):
            return
        pause(stop, 0.0)
        if time.monotonic() - begun > plan.limit_seconds:
            break
        with follower.lock:
            judge.posting(time.monotonic())
        try:
            client.post([plan.crash(number, clock.now_ms())])
        except PostError as error:
            with follower.lock:
                judge.refused(str(error))
        else:
            with follower.lock:
                judge.taken()
    while not follower.settled.wait(_POLL_SECONDS) and time.monotonic() - begun <= plan.limit_seconds:
        pause(stop, 0.0)
