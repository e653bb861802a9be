"""What a subscriber checks before it obeys: the signature, that it is a kill-switch event, and its place in the chain.

Used by the client, by `cordon verify`, and by the stage when it reads its own events back. Invariants: nothing that
fails a check is returned, and no two different decisions pass under one number.
"""

import hashlib
from dataclasses import dataclass

from ingest.events import UNREADABLE_ERRORS
from ingest.topics import LIVE_LANE
from signals.events import EVENT_TYPE, CloudEvent, Envelope, Switch, envelope_decoder, event_decoder
from signals.killswitch.signing import MalformedEventError, PublicKeys, SwitchError

ROLLOUTS_MAX = 100_000


class WrongLaneError(SwitchError):
    """The event belongs to a replay or another lane: it must not move a real rollout."""


class NumberGapError(SwitchError):
    """Events between the last one seen and this one are missing."""


class PreviousDigestError(SwitchError):
    """The event does not follow the one seen before it: one of the two was replaced."""


class TwoDecisionsError(SwitchError):
    """Two different events carry the same number."""


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
    payload = keys.open(envelope)
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
    return VerifiedEvent(event, payload, digest_of(payload), envelope)


class Chain:
    """Orders the events of many rollouts: numbers without holes, each naming the one before."""

    def __init__(self, lane: str | None = LIVE_LANE, *, from_start: bool = False) -> None:
        """Begin with no event seen.

        Args:
            lane: the only lane believed; None takes any.
            from_start: the first event of each rollout must be number 1; otherwise whatever comes first is taken.
        """
        self._lane = lane
        self._from_start = from_start
        self._last: dict[str, tuple[int, str]] = {}

    def accept(self, verified: VerifiedEvent) -> bool:
        """Take the event as the next of its rollout; False if it was seen before.

        Raises:
            WrongLaneError: it is of another lane.
            NumberGapError: events before it are missing.
            PreviousDigestError: it does not follow the one before it.
            TwoDecisionsError: another event had its number.
        """
        switch = verified.switch
        if self._lane is not None and switch.lane != self._lane:
            raise WrongLaneError(f"{verified.event.id} is of lane {switch.lane!r}, not {self._lane!r}: do not obey it")
        last = self._last.get(switch.rollout)
        if last is None:
            self._check_first(verified)
        elif not self._follows(verified, *last):
            return False
        self._last[switch.rollout] = (switch.number, verified.digest)
        return True

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
