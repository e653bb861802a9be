"""The wire type of a rollout: what is shipped, to whom, from when; declared by a rollout system or discovered.

One record of `cordon.rollouts.v1` holds the whole rollout, keyed by its id; a later record replaces it.
"""

import enum
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ingest.events import SCHEMA_WRITTEN, Name, Optional64, RecordSchema, ShortName, TimeMs, UpdateKind


class Bound(enum.StrEnum):
    """What bounds the exposed share from above: without a bound there is no score."""

    DECLARED = "declared"  # the rollout system said what it pushes to whom and when
    OFFERED = "offered"  # every device posts `offered` before it activates the update
    NONE = "none"  # only `installed` was ever seen: victims that die at once would count as control


class Ring(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A rule: devices eligible for a ring get the update from a time on.

    Attributes:
        name: the ring's name, as devices report the ring they are eligible for.
        starts_at_ms: when the push to this ring begins; null while that is not known.
        over_seconds: how long the push takes to reach all of its share; the exposed bound rises evenly over it.
        share: the part of the ring that is pushed to (the rest is held out), 0 to 1.
    """

    name: ShortName
    starts_at_ms: TimeMs | None = None
    over_seconds: Annotated[float, Meta(ge=0, le=90 * 86400)] = 0.0
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Push(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A list: these devices get the update from a time on. Behind the gateway the names are pseudonyms.

    Attributes:
        tenant: whose devices they are; may be left out by a token that speaks for one tenant only.
    """

    tenant: Optional64 = ""
    devices: Annotated[list[Name], Meta(max_length=100_000)]
    from_ms: TimeMs


RingDevices = Annotated[dict[ShortName, Annotated[int, Meta(ge=1, le=100_000_000)]], Meta(max_length=16)]


class RolloutDeclaration(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rollouts`. A typo in a field name is refused, since it would change what is compared.

    Attributes:
        ring_devices: how many devices each ring has, by its name, as far as the rollout system knows. Asked for only to
            advise how fast to push; nothing is decided by it.
    """

    vendor: ShortName
    product: ShortName
    update_kind: UpdateKind
    version: ShortName
    starts_at_ms: TimeMs | None = None
    rings: Annotated[list[Ring], Meta(max_length=16)] = []
    pushed: Annotated[list[Push], Meta(max_length=64)] = []
    ring_devices: RingDevices = {}


class Rollout(msgspec.Struct, kw_only=True):
    """A rollout as the log keeps it.

    Attributes:
        rollout: its id, the hash of product and version.
        origin_ms: when it began: the origin from which both arms' first crashes count.
        bound: what bounds the exposed share; a declaration beats `offered`, which beats none.
        rings: the rules by which it is pushed.
        declared_by: the token that declared it; empty for discovered ones.
        discovered_by: the tenant whose report revealed it; empty for declared ones. Its small budget pays for it.
        pushed_devices: how many devices were declared by list (the lists themselves go to the device partitions).
        pushed_lists: names of those lists, sorted: a digest of the content and the number of devices, so that a
            declaration sent again is not counted again.
        closed: the rollout is over; nobody watches it any more.
        origin_said_ms: the gateway's clock when the origin was said; one that lies before it had passed by then, and
            never moves again. 0: by a gateway that did not tell.
        rings_said_ms: the gateway's clock when the rings were said; the latest word on them counts.
        ring_devices: how many devices the rings have, as was said with them; nothing is decided by it.
    """

    schema: RecordSchema = SCHEMA_WRITTEN
    rollout: str
    vendor: str
    product: str
    update_kind: UpdateKind
    version: str
    origin_ms: int
    bound: Bound
    rings: list[Ring] = []
    pushed_devices: int = 0
    pushed_lists: list[str] = []
    declared_by: str = ""
    discovered_by: str = ""
    closed: bool = False
    origin_said_ms: int = 0
    rings_said_ms: int = 0
    ring_devices: dict[str, int] = {}


def rollout_id(vendor: str, product: str, version: str) -> str:
    """Return the id of the rollout of one update: `r-` and 16 hexadecimal digits of a hash of product and version."""
    text = f"{vendor}\x00{product}\x00{version}"
    return "r-" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def ring_names(rings: Sequence[Ring], ring_devices: Mapping[str, int]) -> set[str]:
    """Return the names of rings.

    Raises:
        ValueError: a ring is declared twice, or the size of one is told that is not declared.
    """
    names = {ring.name for ring in rings}
    if len(names) < len(rings):
        raise ValueError("a ring is declared twice: give each ring once, by its name")
    unknown = sorted(set(ring_devices) - names)
    if unknown:
        declared = ", ".join(sorted(names)) or "none is declared"
        raise ValueError(f"ring_devices names {unknown[0]!r}, which is none of the rings: {declared}")
    return names


rollout_decoder = msgspec.json.Decoder(Rollout)
