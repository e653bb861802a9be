"""What a subscriber of the stream asked for: which rollouts, drills or not, leases or not.

Pure; between the query of a request and the hub's frames. Invariant: drills reach only those who asked for them, and a
word that is none of these is an error, never a default.
"""

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from detectors.drill import is_drill
from ingest.events import UNREADABLE_ERRORS


class WantedError(ValueError):
    """A subscriber asks for something that there is not; the message says what there is."""


class Drills(enum.StrEnum):
    """Whether a subscriber wants drills: events of rollouts that Cordon makes up daily to test itself."""

    NONE = "none"
    INCLUDE = "include"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one subscriber gets.

    Attributes:
        rollout: the only rollout wanted; None wants all.
        drills: whether drills are among them; a rollout that is asked for by its id is sent whatever it is.
        leases: whether leases are sent as well.
    """

    rollout: bytes | None = None
    drills: Drills = Drills.NONE
    leases: bool = False

    def takes(self, rollout: bytes | None, drill: bool) -> bool:
        """Tell whether events of a rollout are wanted."""
        if self.rollout is not None:
            return rollout == self.rollout
        return self.drills is Drills.INCLUDE or drill is (self.drills is Drills.ONLY)


def wanted_of(query: Mapping[str, str]) -> Wanted:
    """Return what the query of a request asks for.

    Raises:
        WantedError: `drills` or `leases` is a word that there is not.
    """
    rollout, drills, leases = query.get("rollout"), query.get("drills", Drills.NONE), query.get("leases", "0")
    if drills not in list(Drills):
        raise WantedError(f"drills={drills[:32]!r}: use none, include or only")
    if leases not in ("0", "1"):
        raise WantedError(f"leases={leases[:32]!r}: use 1 for leases, or leave it out")
    return Wanted(rollout.encode() if rollout is not None else None, Drills(drills), leases == "1")


class _Update(msgspec.Struct):
    vendor: str = ""
    product: str = ""
    drill: bool = False


class _Peek(msgspec.Struct):
    data: _Update


class _Sealed(msgspec.Struct):
    payload: str


_sealed_decoder = msgspec.json.Decoder(_Sealed)
_peek_decoder = msgspec.json.Decoder(_Peek)


def is_drill_envelope(value: bytes) -> bool:
    """Tell whether an event or a lease is of a drill; what can't be read is none, and is for its reader to refuse."""
    try:
        data = _peek_decoder.decode(base64.b64decode(_sealed_decoder.decode(value).payload)).data
    except (*UNREADABLE_ERRORS, ValueError):
        return False
    return data.drill or is_drill(data.vendor, data.product)
