"""What a subscriber checks before it obeys: the signature, that it is a kill-switch event or lease, and its place.

Used by the client, by `cordon verify`, and by the stage when it reads its own events back. Invariants: nothing that
fails a check is returned, and no two different decisions pass under one number.
"""

import hashlib
from dataclasses import dataclass

from ingest.events import UNREADABLE_ERRORS
from ingest.topics import LIVE_LANE
from signals.events import (
    EVENT_TYPE,
    LEASE_TYPE,
    CloudEvent,
    Envelope,
    Lease,
    LeaseEvent,
    Switch,
    envelope_decoder,
    event_decoder,
    lease_decoder,
)
from signals.killswitch.signing import MalformedEventError, PublicKeys, SwitchError

ROLLOUTS_MAX = 100_000
# By how much the clocks of Cordon and of a subscriber may differ.
CLOCK_SKEW_MS = 30_000
LEASE_SECONDS_MAX = 3600


class WrongLaneError(SwitchError):
    """The event belongs to a replay or another lane: it must not move a real rollout."""


class NumberGapError(SwitchError):
    """Events between the last one seen and this one are missing."""


class PreviousDigestError(SwitchError):
    """The event does not follow the one seen before it: one of the two was replaced."""


class TwoDecisionsError(SwitchError):
    """Two different events carry the same number."""


class LeaseError(SwitchError):
    """A lease can't be believed; whatever was held before goes on until its own end."""


class LeaseDigestError(LeaseError):
    """The lease names another event under the number of one that was seen: one of the two was forged."""


class LeaseFutureError(LeaseError):
    """The lease was issued ahead of this clock by more than clocks may differ."""


class LeaseTooLongError(LeaseError):
    """The lease lasts longer than any that Cordon grants."""


class LeaseUselessError(LeaseError):
    """The lease is genuine but says nothing any more; a client goes on as if it had not come."""


class LeaseExpiredError(LeaseUselessError):
    """The lease has run out."""


class LeaseReplayedError(LeaseUselessError):
    """A lease that was issued later is held already."""


class LeaseOutdatedError(LeaseUselessError):
    """The lease was granted before the last event that was seen."""


@dataclass(frozen=True, slots=True)
class VerifiedEvent:
    """An event whose signature and form were checked.

    Attributes:
        payload: the signed bytes.
        digest: SHA-256 of `payload`, hexadecimal: what the next event names as its previous one.
        envelope: as it came, for whoever wants to check it again.
    """

    event: CloudEvent
    payload: bytes
    digest: str
    envelope: Envelope

    @property
    def switch(self) -> Switch:
        """Return what the event says."""
        return self.event.data


@dataclass(frozen=True, slots=True)
class VerifiedLease:
    """A lease whose signature and form were checked; attributes as of `VerifiedEvent`."""

    event: LeaseEvent
    payload: bytes
    digest: str
    envelope: Envelope

    @property
    def lease(self) -> Lease:
        """Return what it says."""
        return self.event.data


def digest_of(payload: bytes) -> str:
    """Return SHA-256 of an event's payload, hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def source_of(lane: str) -> str:
    """Return the CloudEvents source of a lane; source and id together are unique."""
    return f"/cordon/{lane}"


def parse_envelope(data: bytes) -> Envelope:
    """Read a DSSE envelope.

    Raises:
        MalformedEventError: it is none.
    """
    try:
        return envelope_decoder.decode(data)
    except UNREADABLE_ERRORS as error:
        raise MalformedEventError(f"this is no DSSE envelope: {error}") from error


def open_event(envelope: Envelope, keys: PublicKeys) -> VerifiedEvent:
    """Verify the signature and that the payload is a well-formed kill-switch event.

    Raises:
        SwitchError: one of its subclasses says what is wrong.
    """
    payload, signed_by = keys.open_signed(envelope)
    try:
        event = event_decoder.decode(payload)
    except UNREADABLE_ERRORS as error:
        raise MalformedEventError(f"the signed payload is no kill-switch CloudEvent: {error}") from error
    switch = event.data
    if event.specversion != "1.0" or event.type != EVENT_TYPE:
        raise MalformedEventError(
            f"specversion {event.specversion!r}, type {event.type!r}: this client reads 1.0 and {EVENT_TYPE}"
        )
    identity = (f"{switch.rollout}/{switch.number}", switch.rollout, source_of(switch.lane))
    if (event.id, event.subject, event.source) != identity or switch.number < 1:
        raise MalformedEventError(f"event {event.id!r} does not carry its own rollout, number and lane")
    keys.require_term(signed_by, switch.decided_ms, event.id)
    return VerifiedEvent(event, payload, digest_of(payload), envelope)


def open_lease(envelope: Envelope, keys: PublicKeys) -> VerifiedLease:
    """Verify the signature and that the payload is a well-formed lease; its time is for `Chain.accept_lease`.

    Raises:
        SwitchError: one of its subclasses says what is wrong.
    """
    payload, signed_by = keys.open_signed(envelope)
    try:
        event = lease_decoder.decode(payload)
    except UNREADABLE_ERRORS as error:
        raise MalformedEventError(f"the signed payload is no lease: {error}") from error
    lease = event.data
    if event.specversion != "1.0" or event.type != LEASE_TYPE:
        raise MalformedEventError(f"type {event.type!r} is no lease: this client reads {LEASE_TYPE}")
    identity = (lease_id(lease), lease.rollout, source_of(lease.lane))
    if (event.id, event.subject, event.source) != identity or lease.number < 0:
        raise MalformedEventError(f"lease {event.id!r} does not carry its own rollout, time and lane")
    if lease.expires_ms <= lease.issued_ms or lease.expires_ms - lease.issued_ms > LEASE_SECONDS_MAX * 1000:
        raise LeaseTooLongError(
            f"{event.id} lasts {(lease.expires_ms - lease.issued_ms) / 1000:g} s, where Cordon grants more than 0 and "
            f"at most {LEASE_SECONDS_MAX} s: do not go by it"
        )
    keys.require_term(signed_by, lease.issued_ms, event.id)
    return VerifiedLease(event, payload, digest_of(payload), envelope)


def lease_id(lease: Lease) -> str:
    """Return the id of a lease's CloudEvent."""
    return f"{lease.rollout}/lease/{lease.issued_ms}"


class Chain:
    """Orders the events of many rollouts: numbers without holes, each naming the one before; and their leases."""

    def __init__(self, lane: str | None = LIVE_LANE, *, from_start: bool = False) -> None:
        """Begin with no event seen.

        Args:
            lane: the only lane believed; None takes any.
            from_start: the first event of each rollout must be number 1; otherwise whatever comes first is taken.
        """
        self._lane = lane
        self._from_start = from_start
        self._last: dict[str, tuple[int, str]] = {}
        self._leases: dict[str, VerifiedLease] = {}

    def stand_at(self, verified: VerifiedEvent) -> None:
        """Go on behind this event, which was accepted before: it is kept on disk.

        Raises:
            WrongLaneError: it is of another lane.
        """
        self._check_lane(verified.switch.lane, verified.event.id)
        self._last[verified.switch.rollout] = (verified.switch.number, verified.digest)

    def forget(self, rollout: str) -> None:
        """Forget a rollout: whatever comes of it next is taken as its first."""
        self._last.pop(rollout, None)
        self._leases.pop(rollout, None)

    def accept_lease(self, verified: VerifiedLease, now_ms: int, skew_ms: int = CLOCK_SKEW_MS) -> bool:
        """Take the lease as the latest of its rollout; False if it is held already.

        A lease that knows of a later event than was seen is taken: the event is on its way, and must then be the one
        that the lease names.

        Args:
            verified: the lease.
            now_ms: this machine's wall clock.
            skew_ms: by how much it may lag behind Cordon's.

        Raises:
            LeaseError: one of its subclasses says why it is not taken.
            WrongLaneError: it is of another lane.
        """
        lease, name = verified.lease, verified.event.id
        self._check_lane(lease.lane, name)
        held = self._leases.get(lease.rollout)
        if held is not None and held.digest == verified.digest:
            return False
        if lease.issued_ms > now_ms + skew_ms:
            raise LeaseFutureError(
                f"{name} was issued {(lease.issued_ms - now_ms) / 1000:.1f} s ahead of this clock: set this machine's "
                f"clock right, or that of the one that Cordon runs on; until then the rollout is on hold"
            )
        if now_ms >= lease.expires_ms:
            raise LeaseExpiredError(f"{name} ran out {(now_ms - lease.expires_ms) / 1000:.1f} s ago: it says nothing")
        if held is not None and lease.issued_ms <= held.lease.issued_ms:
            raise LeaseReplayedError(f"{name} is no newer than {held.event.id}, which is held: it was sent again")
        number, digest = self._last.get(lease.rollout, (0, ""))
        if lease.number < number:
            raise LeaseOutdatedError(
                f"{name} was granted after event {lease.number}, but event {number} was seen since"
            )
        if lease.rollout in self._last and lease.number == number and lease.digest != digest:
            raise LeaseDigestError(
                f"{name} names another event {number} than the one that was seen: one of them was forged. Hold the "
                f"rollout, and tell people"
            )
        if lease.rollout not in self._leases and len(self._leases) >= ROLLOUTS_MAX:
            raise SwitchError(f"leases of more than {ROLLOUTS_MAX} rollouts on one stream: subscribe by rollout")
        self._leases[lease.rollout] = verified
        return True

    def accept(self, verified: VerifiedEvent) -> bool:
        """Take the event as the next of its rollout; False if it was seen before.

        Raises:
            WrongLaneError: it is of another lane.
            NumberGapError: events before it are missing.
            PreviousDigestError: it does not follow the one before it.
            TwoDecisionsError: another event had its number.
        """
        switch = verified.switch
        self._check_lane(switch.lane, verified.event.id)
        last = self._last.get(switch.rollout)
        if last is None:
            self._check_first(verified)
        elif not self._follows(verified, *last):
            return False
        self._check_named(verified)
        self._last[switch.rollout] = (switch.number, verified.digest)
        return True

    def _check_lane(self, lane: str, name: str) -> None:
        if self._lane is not None and lane != self._lane:
            raise WrongLaneError(f"{name} is of lane {lane!r}, not {self._lane!r}: do not obey it")

    def _check_named(self, verified: VerifiedEvent) -> None:
        held = self._leases.get(verified.switch.rollout)
        if held is None or held.lease.number != verified.switch.number or held.lease.digest == verified.digest:
            return
        raise LeaseDigestError(
            f"{held.event.id} names another event {verified.switch.number} than {verified.event.id}: one of them was "
            f"forged. Hold the rollout, and tell people"
        )

    def _check_first(self, verified: VerifiedEvent) -> None:
        switch = verified.switch
        if self._from_start and switch.number != 1:
            raise NumberGapError(
                f"{verified.event.id} came first, but events before it are missing: read from the start"
            )
        if switch.number == 1 and switch.previous_digest:
            raise PreviousDigestError(f"{verified.event.id} is the first and yet names a previous event")
        if len(self._last) >= ROLLOUTS_MAX:
            raise SwitchError(f"more than {ROLLOUTS_MAX} rollouts on one stream: subscribe by rollout")

    def _follows(self, verified: VerifiedEvent, number: int, digest: str) -> bool:
        switch = verified.switch
        if switch.number == number and verified.digest != digest:
            raise TwoDecisionsError(
                f"two different events are numbered {verified.event.id}: obey the stricter, tell people"
            )
        if switch.number <= number:
            return False
        if switch.number > number + 1:
            raise NumberGapError(
                f"{verified.event.id} came after number {number}: events are missing. Hold, and read the stream again "
                f"from the start"
            )
        if switch.previous_digest != digest:
            raise PreviousDigestError(
                f"{verified.event.id} does not follow the event numbered {number} that was seen: one of them was "
                f"replaced. Do not obey it"
            )
        return True
