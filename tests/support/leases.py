"""Leases, rings and switches of parts, put into a rig's log as the signals stage writes them."""

import msgspec

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.log.interface import Entry
from ingest.rollouts import Bound, Ring, Rollout
from signals.events import Lease, ScopedStop, Switch, SwitchRecord, SwitchState
from signals.killswitch.event import cloud_event, lease_event
from support.streams import StreamRig, eventually
from support.switches import ROLLOUT, SIGNER, START_MS

RINGS = [Ring(name="canary", starts_at_ms=START_MS - 60_000), Ring(name="early", starts_at_ms=START_MS + 600_000)]


def declare_rings(rig: StreamRig, rings: list[Ring] | None = None, rollout: str = ROLLOUT) -> None:
    """Declare a rollout with rings, of which canary has started and early is next unless given."""
    declared = Rollout(
        rollout=rollout,
        vendor="crowdstrike",
        product="falcon-content",
        update_kind="content",
        version="291",
        origin_ms=START_MS,
        bound=Bound.DECLARED,
        rings=RINGS if rings is None else rings,
    )
    rig.log.append([Entry(*rig.source("rollouts"), rollout.encode(), encoder.encode(declared))])
    eventually(lambda: (facts := rig.service.views.facts(rollout)) is not None and facts.declared == declared)


def grant(rig: StreamRig, rollout: str = ROLLOUT, *, seconds: int = 60, number: int = 0) -> Lease:
    """Sign a lease of now, append it, and wait until it is shown."""
    now_ms = rig.clock.now_ms()
    lease = Lease(
        rollout=rollout,
        lane="live",
        number=number,
        digest="",
        decision=DecisionWord.PROCEED,
        issued_ms=now_ms,
        expires_ms=now_ms + seconds * 1000,
        watermark_ms=now_ms,
    )
    envelope = SIGNER.sign(msgspec.json.encode(lease_event(lease)))
    rig.log.append([Entry(*rig.source("leases"), rollout.encode(), encoder.encode(envelope))])
    eventually(lambda: (facts := rig.service.views.facts(rollout)) is not None and facts.lease == lease)
    return lease


def stand(rig: StreamRig, *stops: ScopedStop, number: int = 1, rollout: str = ROLLOUT) -> None:
    """Append a switch record that says which parts are stopped, and wait until it is shown."""
    switch = Switch(
        rollout=rollout,
        number=number,
        previous_digest="",
        lane="live",
        vendor="crowdstrike",
        product="falcon-content",
        version="291",
        state=stops[-1].state if stops else SwitchState.OBSERVING,
        previous_state=SwitchState.OBSERVING,
        decision=DecisionWord.HOLD if stops else DecisionWord.PROCEED,
        cause="person",
        reason="odd",
        sentence="Ada asked for it: odd",
        watermark_ms=0,
        decided_ms=rig.clock.now_ms(),
        scope=stops[-1].scope if stops else WHOLE,
        whole=SwitchState.OBSERVING,
        stops=list(stops),
    )
    envelope = SIGNER.sign(msgspec.json.encode(cloud_event(switch)))
    record = SwitchRecord(envelope=envelope, offsets={})
    rig.log.append([Entry(*rig.source("switches"), rollout.encode(), encoder.encode(record))])
    eventually(lambda: (facts := rig.service.views.facts(rollout)) is not None and facts.switch == switch)


def part(scope: Scope, state: SwitchState = SwitchState.HELD, until_ms: int = 0) -> ScopedStop:
    """Return a stop of a part."""
    return ScopedStop(scope=scope, state=state, until_ms=until_ms, number=1)
