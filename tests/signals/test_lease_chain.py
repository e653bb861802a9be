"""Leases as a subscriber checks them: the forged, altered, reordered, replayed and expired are refused, in words."""

import base64
import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.verdict import DecisionWord
from ingest.events import encoder
from signals.events import Envelope, Lease, Signature, Switch, SwitchState
from signals.killswitch.event import cloud_event, lease_event
from signals.killswitch.signing import (
    BadSignatureError,
    KeyTerm,
    MalformedEventError,
    PublicKeys,
    RetiredKeyError,
    SwitchError,
    UnknownKeyError,
)
from signals.killswitch.verify import (
    CLOCK_SKEW_MS,
    LEASE_SECONDS_MAX,
    Chain,
    LeaseDigestError,
    LeaseExpiredError,
    LeaseFutureError,
    LeaseOutdatedError,
    LeaseReplayedError,
    LeaseTooLongError,
    VerifiedEvent,
    VerifiedLease,
    WrongLaneError,
    open_event,
    open_lease,
)
from support.switches import KEYS, ROLLOUT, SIGNER, START_MS, STRANGER

NOW_MS = START_MS


def lease(number: int = 0, digest: str = "", issued_ms: int = NOW_MS, seconds: float = 60, lane: str = "live") -> Lease:
    return Lease(
        rollout=ROLLOUT,
        lane=lane,
        number=number,
        digest=digest,
        decision=DecisionWord.PROCEED,
        issued_ms=issued_ms,
        expires_ms=issued_ms + int(seconds * 1000),
        watermark_ms=issued_ms,
    )


def sealed(said: Lease) -> Envelope:
    return SIGNER.sign(encoder.encode(lease_event(said)))


def opened(said: Lease) -> VerifiedLease:
    return open_lease(sealed(said), KEYS)


def events(count: int, reason: str = "") -> list[VerifiedEvent]:
    """Return a chain of events, each naming the one before."""
    found: list[VerifiedEvent] = []
    for number in range(1, count + 1):
        switch = Switch(
            rollout=ROLLOUT,
            number=number,
            previous_digest=found[-1].digest if found else "",
            lane="live",
            vendor="v",
            product="p",
            version="1",
            state=SwitchState.WATCHING,
            previous_state=SwitchState.OBSERVING,
            decision=DecisionWord.PROCEED,
            cause="detector",
            reason=reason,
            sentence="",
            watermark_ms=0,
            decided_ms=START_MS,
        )
        found.append(open_event(SIGNER.sign(encoder.encode(cloud_event(switch))), KEYS))
    return found


def test_a_lease_of_the_last_event_is_taken_once() -> None:
    [first, last], chain = events(2), Chain()
    chain.accept(first)
    chain.accept(last)
    assert chain.accept_lease(opened(lease(2, last.digest)), NOW_MS)
    assert not chain.accept_lease(opened(lease(2, last.digest)), NOW_MS)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (lease(2, issued_ms=NOW_MS - 60_000), LeaseExpiredError),
        (lease(1), LeaseOutdatedError),
        (lease(2, "f" * 64), LeaseDigestError),
        (lease(2, issued_ms=NOW_MS + CLOCK_SKEW_MS + 1), LeaseFutureError),
        (lease(2, lane="replay-1"), WrongLaneError),
    ],
    ids=["expired", "outdated", "of another event", "from the future", "of another lane"],
)
def test_what_is_not_of_now_or_not_of_the_last_event_is_refused(said: Lease, error: type[SwitchError]) -> None:
    chain = Chain()
    for event in (seen := events(2)):
        chain.accept(event)
    digest = {1: seen[0].digest, 2: said.digest or seen[1].digest}[said.number]
    with pytest.raises(error):
        chain.accept_lease(opened(msgspec.structs.replace(said, digest=digest)), NOW_MS)


def test_an_older_lease_after_a_newer_one_is_a_replay() -> None:
    chain = Chain()
    chain.accept_lease(opened(lease(issued_ms=NOW_MS)), NOW_MS)
    for issued_ms, seconds in ((NOW_MS - 1, 60), (NOW_MS, 61)):
        with pytest.raises(LeaseReplayedError):
            chain.accept_lease(opened(lease(issued_ms=issued_ms, seconds=seconds)), NOW_MS)


def test_a_lease_that_knows_of_a_later_event_binds_which_event_that_is() -> None:
    [first, last], chain = events(2), Chain()
    chain.accept(first)
    assert chain.accept_lease(opened(lease(2, "f" * 64)), NOW_MS)
    with pytest.raises(LeaseDigestError):
        chain.accept(last)
    again = Chain()
    again.accept(first)
    assert again.accept_lease(opened(lease(2, last.digest)), NOW_MS)
    assert again.accept(last)


@pytest.mark.parametrize("seconds", [0, -1, LEASE_SECONDS_MAX + 1])
def test_a_lease_of_no_time_or_of_too_long_a_time_is_refused(seconds: float) -> None:
    with pytest.raises(LeaseTooLongError):
        opened(lease(seconds=seconds))


def test_a_lease_is_no_event_and_an_event_no_lease() -> None:
    with pytest.raises(MalformedEventError):
        open_event(sealed(lease()), KEYS)
    with pytest.raises(MalformedEventError):
        open_lease(events(1)[0].envelope, KEYS)


def test_a_strangers_lease_is_refused() -> None:
    with pytest.raises(UnknownKeyError):
        open_lease(STRANGER.sign(encoder.encode(lease_event(lease()))), KEYS)


def test_a_lease_issued_after_its_key_ended_is_refused() -> None:
    ended = PublicKeys(KEYS.keys(), {SIGNER.key_id: KeyTerm(until_ms=NOW_MS)})
    assert open_lease(sealed(lease(issued_ms=NOW_MS - 1)), ended).lease.issued_ms == NOW_MS - 1
    with pytest.raises(RetiredKeyError):
        open_lease(sealed(lease()), ended)


def test_of_two_signatures_one_by_a_key_that_has_not_ended_suffices() -> None:
    payload = encoder.encode(lease_event(lease()))
    both = SIGNER.sign(payload)
    both.signatures += STRANGER.sign(payload).signatures
    keys = PublicKeys([SIGNER.public, STRANGER.public], {SIGNER.key_id: KeyTerm(until_ms=NOW_MS)})
    assert open_lease(both, keys).lease == lease()
    with pytest.raises(RetiredKeyError):
        open_lease(SIGNER.sign(payload), keys)


@given(place=st.integers(0), flip=st.integers(1, 255))
def test_no_byte_of_a_lease_or_its_signature_can_be_altered(place: int, flip: int) -> None:
    envelope = sealed(lease())
    for field in ("payload", "sig"):
        text = envelope.payload if field == "payload" else envelope.signatures[0].sig
        data = bytearray(base64.b64decode(text))
        data[place % len(data)] ^= flip
        altered = base64.b64encode(bytes(data)).decode()
        forged = Envelope(
            payload=altered if field == "payload" else envelope.payload,
            signatures=[Signature(keyid=SIGNER.key_id, sig=altered if field == "sig" else envelope.signatures[0].sig)],
        )
        with pytest.raises(BadSignatureError):
            open_lease(forged, KEYS)


@given(
    order=st.lists(
        st.tuples(st.sampled_from(["event", "other event", "lease", "other lease"]), st.integers(0, 3)), max_size=24
    ),
    late_ms=st.lists(st.integers(0, 40_000), min_size=24, max_size=24),
)
def test_in_whatever_order_things_come_only_the_true_chain_gets_in(
    order: list[tuple[str, int]], late_ms: list[int]
) -> None:
    true, forged, chain, now_ms = events(3), events(3, "another"), Chain(from_start=True), NOW_MS
    number, issued_ms, named = 0, 0, dict[int, str]()
    for (kind, which), wait_ms in zip(order, late_ms, strict=False):
        now_ms += wait_ms
        source = forged if kind.startswith("other") else true
        digest = source[which - 1].digest if which else ""
        with contextlib.suppress(SwitchError):
            if kind.endswith("event"):
                event = source[max(which, 1) - 1]
                if chain.accept(event):
                    assert event.switch.number == number + 1
                    assert named.get(event.switch.number, event.digest) == event.digest
                    number = event.switch.number
            else:
                said = lease(which, digest, NOW_MS + which * 10_000)
                if chain.accept_lease(opened(said), now_ms):
                    assert said.number >= number
                    assert said.issued_ms > issued_ms
                    assert said.issued_ms - CLOCK_SKEW_MS <= now_ms < said.expires_ms
                    issued_ms = said.issued_ms
                    named = {said.number: digest}
