"""Two gateways' words on one rollout become one: a join that does not mind order, repetition or grouping.

Gateways know of each other only through `cordon.rollouts.v1`, where each writes the whole rollout. What is written at
once by two of them replaces one another there, so whoever reads a record joins it with what it knows. The invariant:
`join` is commutative, associative and idempotent; so all who have seen the same words know the same, and no word is
lost. A bound never gets weaker; an origin that had passed when it was said never gives way to one that had not.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from ingest.events import encoder
from ingest.rollouts import Bound, Rollout

_STRENGTH = {Bound.NONE: 0, Bound.OFFERED: 1, Bound.DECLARED: 2}


def stronger(one: Bound, other: Bound) -> Bound:
    """Return the stronger of two bounds."""
    return max(one, other, key=_STRENGTH.__getitem__)


def list_name(digest: str, devices: int) -> str:
    """Return the name of a pushed list: with its size in it, so that sizes of merged lists can be added up."""
    return f"{digest}.{devices}"


def listed_devices(lists: Sequence[str], least: int) -> int:
    """Return how many devices the lists name, and `least` at the least: old names of lists do not tell their size."""
    sizes = [name.partition(".")[2] for name in lists]
    return max(sum(int(size) for size in sizes if size.isdecimal()), least)


def join(one: Rollout, other: Rollout) -> Rollout:
    """Return what both records say of one rollout.

    Where they contradict each other: the earlier of two origins that had passed when they were said (both arms began
    then at the latest), the later word on one still ahead, the later word on the rings. Contradictions that no clock
    settles are settled by the smaller text.
    """
    origin = _origin(one, other)
    rings = max(one, other, key=lambda rollout: (rollout.rings_said_ms, _rings_text(rollout)))
    lists = sorted({*one.pushed_lists, *other.pushed_lists})
    declared_by = _first(one.declared_by, other.declared_by)
    return replace(
        one,
        update_kind=min(one.update_kind, other.update_kind),
        origin_ms=origin.origin_ms,
        origin_said_ms=max(one.origin_said_ms, other.origin_said_ms),
        bound=stronger(one.bound, other.bound),
        rings=rings.rings,
        ring_devices=rings.ring_devices,
        rings_said_ms=rings.rings_said_ms,
        pushed_devices=listed_devices(lists, max(one.pushed_devices, other.pushed_devices)),
        pushed_lists=lists,
        declared_by=declared_by,
        discovered_by="" if declared_by else _first(one.discovered_by, other.discovered_by),
        closed=one.closed or other.closed,
    )


def _rings_text(rollout: Rollout) -> tuple[bytes, bytes]:
    return encoder.encode(rollout.rings), encoder.encode(sorted(rollout.ring_devices.items()))


def _origin(one: Rollout, other: Rollout) -> Rollout:
    passed = [rollout for rollout in (one, other) if rollout.origin_ms <= rollout.origin_said_ms]
    if passed:
        return min(passed, key=lambda rollout: rollout.origin_ms)
    return max(one, other, key=lambda rollout: (rollout.origin_said_ms, rollout.origin_ms))


def _first(one: str, other: str) -> str:
    return min(filter(None, (one, other)), default="")
