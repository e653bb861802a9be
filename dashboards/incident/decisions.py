"""Which of the stored decisions may be believed: signature, form, place in the chain.

Called by `gather`. Invariant: nothing of an event that fails a check reaches the summary, the time line or the plots;
it is shown as what it is, with the check that it failed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from dashboards.incident.rows import EnvelopeRow
from ingest.events import UNREADABLE_ERRORS
from signals.events import Switch, event_decoder
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import Chain, NumberGapError, VerifiedEvent, open_event, parse_envelope


@dataclass(frozen=True, slots=True)
class Decision:
    """One kill-switch event of the store.

    Attributes:
        number: under which the store has it.
        switch: what it says; None where it can't even be read.
        digest: of the signed payload; empty where it is not believed.
        keys: ids of the keys that it names as its signers.
        fault: why it is not believed; empty where it is.
        note: genuine, but with something amiss before it: events that the store lacks.
    """

    number: int
    switch: Switch | None
    digest: str
    keys: tuple[str, ...]
    fault: str = ""
    note: str = ""

    @property
    def believed(self) -> bool:
        """Whether every check was passed."""
        return not self.fault

    @property
    def at_ms(self) -> int:
        """Event time that it holds for, else when it was decided; 0 where it can't be read."""
        return 0 if self.switch is None else self.switch.watermark_ms or self.switch.decided_ms


def judged(rows: Iterable[EnvelopeRow], rollout: str, lane: str, keys: PublicKeys) -> list[Decision]:
    """Return every stored event with whether it is believed.

    Args:
        rows: in the order of their numbers; the same event may lie there twice.
        rollout: whose events they have to be.
        lane: of which lane.
        keys: that are believed.
    """
    chain = Chain(lane, from_start=True)
    found: list[Decision] = []
    for row in rows:
        data = row.envelope.encode()
        try:
            verified = open_event(parse_envelope(data), keys)
            _require_place(verified, rollout, row.number)
            if not chain.accept(verified):
                continue
            note = ""
        except NumberGapError:
            chain.stand_at(verified)
            note = "events before it are missing from the store"
        except SwitchError as error:
            found.append(_refused(row.number, data, str(error)))
            continue
        signers = tuple(one.keyid for one in verified.envelope.signatures)
        found.append(Decision(row.number, verified.switch, verified.digest, signers, note=note))
    return found


def _require_place(verified: VerifiedEvent, rollout: str, number: int) -> None:
    switch = verified.switch
    if (switch.rollout, switch.number) != (rollout, number):
        raise SwitchError(
            f"this is event {switch.rollout}/{switch.number}, genuine, but put in the place of {rollout}/{number}"
        )


def _refused(number: int, data: bytes, fault: str) -> Decision:
    """Return what is not believed with what it claims, as far as that can be read."""
    try:
        envelope = parse_envelope(data)
        switch = event_decoder.decode(msgspec.json.decode(f'"{envelope.payload}"', type=bytes)).data
    except (*UNREADABLE_ERRORS, SwitchError):
        return Decision(number, None, "", (), fault)
    return Decision(number, switch, "", tuple(one.keyid for one in envelope.signatures), fault)


def believed(decisions: Iterable[Decision]) -> list[Switch]:
    """Return what the believed events say, in order."""
    return [one.switch for one in decisions if one.believed and one.switch is not None]
