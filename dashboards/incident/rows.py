"""What the store's answers hold: a struct for the rows of each query in `queries/`.

Read by `gather`. Integers of 64 bits come as text from ClickHouse's JSON and are read as the numbers they are.
"""

import msgspec


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason that the statistics gave: how often, from when to when (event time), and the last sentence."""

    verdict: str
    reason: str
    verdicts: int
    first_ms: int
    last_ms: int
    said: str


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one verdict: `evidence` is what a kill, `may_hold` what a hold goes by, both powers of ten."""

    at_ms: int
    evidence: float
    may_hold: float
    needed_to_hold: float
    needed_to_kill: float
    crashes_exposed: int
    crashes_control: int
    exposed: int
    heard_share: float | None


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the update reached of one ring, OS build or tenant; `all` of everybody.

    Attributes:
        dimension: `all`, `ring`, `os_build` or `tenant`.
        name: of it, as devices tell.
        told: devices that told of the update themselves, by `offered` or `installed`.
        crashed: devices that reported a crash with the update on disk.
        crashes: how many such crashes.
        boot_loops: how many of them were boot loops.
    """

    dimension: str
    name: str
    told: int
    crashed: int
    crashes: int
    boot_loops: int


class SignatureRow(msgspec.Struct, frozen=True, kw_only=True):
    """One signature: devices with and without the update that crashed so, and its most frequent stack."""

    signature: str
    module: str
    devices: int
    devices_without: int
    crashes_with: int
    first_seen_ms: int
    frames: str


class PageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to tell somebody; `at_ms` is by the wall clock."""

    owner: str
    route: str
    channel: str
    step: str
    level: str
    sequence: int
    attempt: int
    at_ms: int
    answered: str
    status: int
    answer: str
    headline: str


class RecoveryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of the rollout at one minute of event time.

    Attributes:
        silent: not heard from when they should have been.
        looping: crashed, and not quiet since.
        recovered: crashed, heard from since, and quiet.
    """

    at_ms: int
    silent: int
    looping: int
    recovered: int


class RecoveryPart(RecoveryPoint, frozen=True, kw_only=True):
    """The same of one ring and tenant; the tenant is `#` and its hash, empty for a ring's smaller ones together."""

    ring: str
    tenant: str


class EnvelopeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A kill-switch event with its signature, as it lay in the log."""

    number: int
    envelope: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it lay in the log."""

    json: str
