"""What Cordon answers to a rollout system that tells what it is about to push: how fast, and how much at a time.

Wire types, and the interface behind which the answer is worked out: the gateway takes declarations, and what evidence
takes how long is detection's to know. The invariant: advice changes nothing; what was declared is watched as declared.
"""

import enum
from typing import Protocol

import msgspec

from ingest.rollouts import Rollout


class Pace(enum.StrEnum):
    """How fast a ring may be pushed."""

    ANY = "any"
    LIMITED = "limited"
    NONE = "none"
    UNKNOWN = "unknown"


PACE_DOCS: dict[Pace, str] = {
    Pace.ANY: "At any speed: harm in all of it is within the bound.",
    Pace.LIMITED: "At `per_minute_max` devices a minute at most.",
    Pace.NONE: "At no speed: by the time the evidence suffices, more devices have crashed than the bound allows.",
    Pace.UNKNOWN: "Not known: `ring_devices` does not say how large the ring is.",
}


class RingAdvice(msgspec.Struct, kw_only=True):
    """What is to be said of one ring, against the harm that is planned for.

    Attributes:
        ring: its name; empty for devices that are pushed to by list.
        devices: how many devices get the update, as declared; null where that is not known.
        pace: how fast it may be pushed, as a closed word.
        per_minute_max: devices a minute at most; null where pace is not `limited`.
        over_seconds_least: the `over_seconds` that gives; null where pace is not `limited`.
        per_minute: devices a minute as declared; null where all are pushed to at once, or their number is not known.
        crashes: exposed crashes by which the evidence suffices at the declared speed; null where it never does while
            the ring is pushed: then all of it is lost.
        stopped_seconds: from the beginning of the push until it stands still; null likewise.
        lost: devices that have crashed by then at the declared speed; null where the size is not known.
        gate_seconds: from the beginning of the push until its next ring may follow at the earliest, if nobody crashes;
            null where the ring alone never opens the gate.
        warnings: what of the declaration exceeds this, each a sentence.
    """

    ring: str
    pace: Pace
    devices: int | None = None
    per_minute_max: float | None = None
    over_seconds_least: float | None = None
    per_minute: float | None = None
    crashes: int | None = None
    stopped_seconds: float | None = None
    lost: float | None = None
    gate_seconds: float | None = None
    warnings: list[str] = []


class Advice(msgspec.Struct, kw_only=True):
    """What Cordon can decide in time of what was declared.

    Attributes:
        rollout: its id.
        crash_probability: the harm that is planned for: this part of the devices that take the update crashes.
        loss_max: so many devices may crash before the push stands still.
        certainty: with which that is kept.
        devices_any: a ring of at most so many devices may be pushed at any speed.
        rings: one for each declared ring, and one for devices pushed to by list.
        policy: digest of the policy that it was worked out by.
    """

    rollout: str
    crash_probability: float
    loss_max: int
    certainty: float
    devices_any: int
    rings: list[RingAdvice]
    policy: str


class Planner(Protocol):
    """Works out advice; the gateway's composition root has one."""

    def advise(self, rollout: Rollout) -> Advice:
        """Return what is to be said of a declared rollout; takes up to some seconds, and is called in a thread."""
        ...


class NoPlanner:
    """The twin for tests of the gateway alone: nothing is known of any ring."""

    def advise(self, rollout: Rollout) -> Advice:
        """Return that the pace of every ring is unknown."""
        rings = [RingAdvice(ring=ring.name, pace=Pace.UNKNOWN) for ring in rollout.rings]
        return Advice(
            rollout=rollout.rollout,
            crash_probability=0.0,
            loss_max=0,
            certainty=0.0,
            devices_any=0,
            rings=rings,
            policy="",
        )


class AdvisedRollout(Rollout, kw_only=True):
    """A rollout as the log keeps it, and what Cordon advises.

    Attributes:
        advice: how fast to push, and how much at a time; it changes nothing.
    """

    advice: Advice


def advised(rollout: Rollout, advice: Advice) -> AdvisedRollout:
    """Return both in one."""
    return AdvisedRollout(**msgspec.structs.asdict(rollout), advice=advice)
