"""What a rollout system must do: a stop wins, `proceed` needs a lease, and what is not known never helps."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.scope import WHOLE, Scope, hashed_tenant
from detectors.verdict import DecisionWord
from ingest.tenancy import tenant_hash
from signals.events import Lease, Mode, ScopedStop, Switch, SwitchState
from signals.killswitch.effective import (
    EFFECTIVE_REASON_DOCS,
    STOPS,
    Effective,
    EffectiveReason,
    effective,
)
from support.switches import ROLLOUT, START_MS

STRICT = {DecisionWord.PROCEED: 0, DecisionWord.HOLD: 1, DecisionWord.KILL: 2}
CANARY = Scope(ring="canary")
STATES = st.sampled_from(list(SwitchState))
VALUES = {
    "ring": ["", "canary", "broad"],
    "os_build": ["", "22631", "22631.3880", "22631.1", "19045"],
    "model": ["", "xps", "t14"],
    "tenant": ["", "acme", hashed_tenant(tenant_hash("acme")), "globex"],
}


def switch(
    whole: SwitchState = SwitchState.OBSERVING,
    *stops: ScopedStop,
    number: int = 3,
    dry_run: bool = False,
    scope: Scope = WHOLE,
    until_ms: int = 0,
) -> Switch:
    return Switch(
        rollout=ROLLOUT,
        number=number,
        previous_digest="",
        lane="live",
        vendor="crowdstrike",
        product="falcon-content",
        version="291",
        state=whole,
        previous_state=SwitchState.OBSERVING,
        decision=DecisionWord.PROCEED,
        cause="detector",
        reason="",
        sentence="",
        watermark_ms=START_MS,
        decided_ms=START_MS,
        dry_run=dry_run,
        mode=Mode.DRY_RUN if dry_run else Mode.LIVE,
        scope=scope,
        until_ms=until_ms,
        whole=SwitchState.OBSERVING if dry_run and whole in STOPS else whole,
        whole_stop=None if dry_run or whole not in STOPS else stop(WHOLE, whole, until_ms),
        dry_stops=[stop(WHOLE, whole)] if dry_run and whole in STOPS else [],
        stops=list(stops),
    )


def lease(
    number: int = 3, *stops: ScopedStop, seconds: int = 60, decision: DecisionWord = DecisionWord.PROCEED
) -> Lease:
    return Lease(
        rollout=ROLLOUT,
        lane="live",
        number=number,
        digest="",
        decision=decision,
        issued_ms=START_MS,
        expires_ms=START_MS + seconds * 1000,
        watermark_ms=START_MS,
        stops=list(stops),
    )


def stop(scope: Scope, state: SwitchState = SwitchState.HELD, until_ms: int = 0) -> ScopedStop:
    return ScopedStop(scope=scope, state=state, until_ms=until_ms, number=2)


scopes = st.builds(Scope, **{name: st.sampled_from(values) for name, values in VALUES.items()})
stops = st.lists(
    st.builds(
        stop,
        scopes.filter(lambda scope: not scope.whole),
        st.sampled_from([SwitchState.HELD, SwitchState.KILLED]),
        st.sampled_from([0, START_MS + 5000]),
    ),
    max_size=4,
)


@st.composite
def switches(draw: st.DrawFn) -> Switch | None:
    if draw(st.booleans()):
        return None
    return switch(
        draw(STATES),
        *draw(stops),
        number=draw(st.integers(1, 4)),
        dry_run=draw(st.booleans()),
        scope=draw(scopes),
    )


@st.composite
def leases(draw: st.DrawFn) -> Lease | None:
    if draw(st.booleans()):
        return None
    return lease(
        draw(st.integers(0, 4)),
        *draw(stops),
        seconds=draw(st.integers(0, 90)),
        decision=draw(st.sampled_from(list(DecisionWord))),
    )


verdicts = st.sampled_from([None, *DecisionWord])
offsets = st.integers(0, 100_000)


@given(switches(), leases(), scopes, offsets, verdicts)
def test_what_is_not_known_of_a_target_never_makes_it_laxer(
    said: Switch | None, held: Lease | None, target: Scope, offset: int, verdict: DecisionWord | None
) -> None:
    known = effective(said, held, target, START_MS + offset, verdict=verdict)
    for name in VALUES:
        less = msgspec.structs.replace(target, **{name: ""})
        vaguer = effective(said, held, less, START_MS + offset, verdict=verdict)
        assert STRICT[vaguer.decision] >= STRICT[known.decision]


@given(switches(), leases(), scopes, offsets)
def test_an_expired_lease_never_proceeds(said: Switch | None, held: Lease | None, target: Scope, offset: int) -> None:
    found = effective(said, held, target, START_MS + offset)
    if held is None or START_MS + offset >= held.expires_ms:
        assert not found.proceed
    if found.proceed:
        assert (found.reason, found.until_ms) == (EffectiveReason.LEASE_VALID, held.expires_ms if held else 0)
        assert START_MS + offset < found.until_ms


@given(switches(), leases(), scopes, offsets, verdicts, st.sampled_from([SwitchState.HELD, SwitchState.KILLED]))
def test_a_stop_always_wins(
    said: Switch | None,
    held: Lease | None,
    target: Scope,
    offset: int,
    verdict: DecisionWord | None,
    state: SwitchState,
) -> None:
    said = said or switch()
    said.stops = [*said.stops, stop(target, state)] if not target.whole else said.stops
    if target.whole:
        said.whole, said.whole_stop = state, stop(WHOLE, state)
    found = effective(said, held, target, START_MS + offset, verdict=verdict)
    assert STRICT[found.decision] >= (2 if state is SwitchState.KILLED else 1)


@given(switches(), leases(), scopes, offsets, verdicts)
def test_exactly_one_of_the_three_is_said_with_a_reason(
    said: Switch | None, held: Lease | None, target: Scope, offset: int, verdict: DecisionWord | None
) -> None:
    found = effective(said, held, target, START_MS + offset, verdict=verdict)
    assert [found.proceed, found.held, found.killed].count(True) == 1
    assert found.sentence
    assert found.reason in EFFECTIVE_REASON_DOCS


@pytest.mark.parametrize(
    ("said", "held", "at_ms", "expected"),
    [
        (None, None, 0, (DecisionWord.HOLD, EffectiveReason.NO_LEASE)),
        (None, lease(0), 0, (DecisionWord.PROCEED, EffectiveReason.LEASE_VALID)),
        (None, lease(9), 0, (DecisionWord.PROCEED, EffectiveReason.LEASE_VALID)),
        (switch(), lease(3), 59_999, (DecisionWord.PROCEED, EffectiveReason.LEASE_VALID)),
        (switch(), lease(3), 60_000, (DecisionWord.HOLD, EffectiveReason.LEASE_EXPIRED)),
        (switch(), lease(2), 0, (DecisionWord.HOLD, EffectiveReason.LEASE_OUTDATED)),
        (switch(), lease(3, decision=DecisionWord.UNKNOWN), 0, (DecisionWord.HOLD, EffectiveReason.NOT_GRANTED)),
        (switch(SwitchState.RELEASED), lease(3), 0, (DecisionWord.PROCEED, EffectiveReason.LEASE_VALID)),
        (switch(SwitchState.RELEASED), None, 0, (DecisionWord.HOLD, EffectiveReason.NO_LEASE)),
        (switch(SwitchState.KILLED), lease(4), 0, (DecisionWord.KILL, EffectiveReason.KILLED)),
        (switch(SwitchState.KILLED, dry_run=True), lease(3), 0, (DecisionWord.PROCEED, EffectiveReason.LEASE_VALID)),
    ],
)
def test_what_the_whole_is_told(
    said: Switch | None, held: Lease | None, at_ms: int, expected: tuple[DecisionWord, EffectiveReason]
) -> None:
    found = effective(said, held, WHOLE, START_MS + at_ms)
    assert (found.decision, found.reason) == expected


def test_a_stop_of_a_part_binds_that_part_and_whoever_does_not_say_which() -> None:
    said = switch(SwitchState.OBSERVING, stop(Scope(os_build="22631")))

    def asked(target: Scope) -> Effective:
        return effective(said, lease(), target, START_MS)

    assert asked(Scope(os_build="22631.3880")).held
    assert asked(Scope(ring="broad")).held
    assert asked(Scope(os_build="19045")).proceed
    assert asked(WHOLE).scope == Scope(os_build="22631")


def test_the_strictest_stop_decides_and_of_two_alike_the_one_that_lasts_longer() -> None:
    mild, lasting = stop(CANARY, until_ms=START_MS + 9), stop(CANARY)
    assert effective(switch(SwitchState.HELD, mild, lasting, until_ms=5), None, CANARY, 0).until_ms == 0
    killed = effective(switch(SwitchState.HELD, stop(CANARY, SwitchState.KILLED)), lease(), CANARY, START_MS)
    assert (killed.decision, killed.scope) == (DecisionWord.KILL, CANARY)


def test_a_lease_that_knows_more_than_we_do_names_stops_we_have_not_seen() -> None:
    found = effective(switch(number=3), lease(4, stop(CANARY)), CANARY, START_MS)
    assert found.held
    # One that knows less names a stop that may have been lifted since.
    assert effective(switch(number=5), lease(4, stop(CANARY)), CANARY, START_MS).reason == "lease_outdated"


def test_an_event_of_a_release_that_knew_no_parts_stands_for_the_whole() -> None:
    old = switch(SwitchState.KILLED)
    old.whole = old.whole_stop = None
    assert effective(old, lease(), CANARY, START_MS).killed
    old.dry_run = True
    assert effective(old, lease(), CANARY, START_MS).proceed


@pytest.mark.parametrize("scope", [WHOLE, CANARY])
def test_a_dry_run_event_says_nothing_against_a_stop_that_stood_before_it(scope: Scope) -> None:
    said = switch(SwitchState.HELD, scope=scope)
    said.dry_run, said.dry_stops = True, [stop(scope, SwitchState.KILLED)]
    assert effective(said, lease(), WHOLE, START_MS).held


@pytest.mark.parametrize("verdict", list(DecisionWord))
def test_a_lane_without_leases_goes_by_the_verdict(verdict: DecisionWord) -> None:
    found = effective(None, None, WHOLE, START_MS, verdict=verdict)
    assert (found.proceed, found.reason) == (verdict is DecisionWord.PROCEED, EffectiveReason.VERDICT)
    assert effective(switch(SwitchState.RELEASED), None, WHOLE, START_MS, verdict=verdict).proceed


def test_a_lease_of_another_rollout_is_a_mistake_of_the_caller() -> None:
    other = lease()
    other.rollout = "r-other"
    with pytest.raises(ValueError, match="r-other"):
        effective(switch(), other, WHOLE, START_MS)
