"""What vendors are answered: the bodies of their paths.

Invariant: no field holds a device, a tenant, a site or a person, and none a number of few devices. Null stands where
there is nothing to tell, whether because it is too few or because it is none: the two are not told apart.
"""

import msgspec


class CellHealth(msgspec.Struct, kw_only=True):
    """One OS build, or one signature, of one version.

    Attributes:
        name: the exact OS build, or the signature; `(other)` for all that is too small to be told by itself, and for
            signatures in modules that the registry does not give to the vendor.
        devices: on it, rounded down; null for signatures.
        crashed: distinct devices that crashed, each counted with its first crash of the day.
        rate: crashed by devices.
    """

    name: str
    devices: int | None = None
    crashed: int | None = None
    rate: float | None = None


class VersionHealth(msgspec.Struct, kw_only=True):
    """One version of a product in one day.

    Attributes:
        version: as reported; `(other)` for all that are too small to be told by themselves.
        devices: that reported it in the two weeks up to the day's end, rounded down.
        crashed: distinct devices that crashed with it on their disk.
        rate: crashed by devices.
        os_builds: parts of `crashed` and `devices` that add up to them.
        signatures: parts of `crashed` that add up to it.
    """

    version: str
    devices: int | None = None
    crashed: int | None = None
    rate: float | None = None
    os_builds: list[CellHealth] = []
    signatures: list[CellHealth] = []


class ProductHealth(msgspec.Struct, kw_only=True):
    """One product in one day.

    Attributes:
        vendor: as rollouts and devices call it.
        devices: sum over the versions, rounded down; a device that moved from one to another counts in both.
        crashed: the same of devices that crashed.
        rate: crashed by devices.
        versions: that are told of.
    """

    vendor: str
    product: str
    devices: int | None = None
    crashed: int | None = None
    rate: float | None = None
    versions: list[VersionHealth] = []


class Window(msgspec.Struct, kw_only=True, frozen=True):
    """A whole day, UTC, of event time: the only spans that are told of, so none overlap.

    Attributes:
        day: as `2024-07-19`.
        from_ms: when it begins.
        to_ms: when it ends.
        before_ms: what was received later is not in its numbers, for ever.
    """

    day: str
    from_ms: int
    to_ms: int
    before_ms: int


class VendorStack(msgspec.Struct, kw_only=True):
    """Where crashes of one signature, in a module of the vendor, happen most often.

    Attributes:
        signature: module and bugcheck.
        frames: at most three places, innermost first, as `csagent.sys+0xe14ed`; `(other)` for those in modules that the
            registry does not give to the vendor.
        crashed_at_least: devices that crashed so, in steps of the ladder.
    """

    signature: str
    frames: list[str]
    crashed_at_least: int


class VendorEvidence(msgspec.Struct, kw_only=True):
    """The evidence of a rollout, in steps of a ladder (1, 2, 5, 10, 20, 50, ...).

    Attributes:
        crashed_at_least: devices on the update that crashed.
        control_crashed_at_least: others that crashed; null below the least number.
        exposed_at_least: devices on the update.
        rate_ratio: how many times the rate of the others, to one digit.
        log10_evidence: for harm, whole.
        log10_needed_to_kill: as policy demands.
        stacks: of the most frequent signatures, those in the vendor's modules; none of few devices or few tenants.
    """

    crashed_at_least: int
    control_crashed_at_least: int | None
    exposed_at_least: int | None
    rate_ratio: float | None
    log10_evidence: int
    log10_needed_to_kill: float
    stacks: list[VendorStack] = []


class VendorRecovery(msgspec.Struct, kw_only=True):
    """How devices of the update come back, in steps of the same ladder; null below the least number.

    Attributes:
        silent_at_least: not heard from when they should have been.
        looping_at_least: still crashing.
        recovered_at_least: crashed, and back.
    """

    silent_at_least: int | None
    looping_at_least: int | None
    recovered_at_least: int | None


class VendorRollout(msgspec.Struct, kw_only=True):
    """One of the vendor's rollouts, as it stands now.

    Attributes:
        state: of the switch of the whole rollout; empty before its first event. Parts, of which one may be a single
            tenant, are not told.
        decision: what the latest verdict makes of it.
        verdict: its word.
        reason: the closed word of the verdict.
        rings: those that have started, as they were declared.
        at_ms: what the verdict holds for.
        evidence: null while it is of few devices or few tenants.
        recovery: likewise.
    """

    rollout: str
    vendor: str
    product: str
    version: str
    state: str = ""
    decision: str = ""
    verdict: str = ""
    reason: str = ""
    rings: list[str] = []
    at_ms: int = 0
    evidence: VendorEvidence | None = None
    recovery: VendorRecovery | None = None


class VendorHealth(msgspec.Struct, kw_only=True):
    """What `GET /v1/vendors/me/health` answers.

    Attributes:
        vendors: whom the token speaks for.
        devices_least: groups of fewer devices are not told of.
        tenants_least: nor are those of fewer tenants.
        window: the day that `products` are of; null while none is complete, or without a store.
        windows: the days that can be asked for, the newest last.
        products: of the vendor, those large enough.
        rollouts: of the vendor, sorted by id, at most 200.
    """

    vendors: list[str]
    devices_least: int
    tenants_least: int
    window: Window | None
    windows: list[str]
    products: list[ProductHealth]
    rollouts: list[VendorRollout]


class VendorPair(msgspec.Struct, kw_only=True):
    """One version beside one OS build, model or other product's version, for a joint test.

    Attributes:
        product: whose version it is.
        factor: what the level is of: `os build`, `model`, or another product.
        devices_at_least: with both, in steps of the ladder.
        crashed_at_least: of them; null below the least number.
        ratio: how many times more than both by themselves explain, to two digits; null where that is not known.
        finding: `interaction`, `worse_together` or `none`.
    """

    product: str
    version: str
    factor: str
    level: str
    devices_at_least: int
    crashed_at_least: int | None
    ratio: float | None
    finding: str


class VendorCompatibility(msgspec.Struct, kw_only=True):
    """What `GET /v1/vendors/me/compatibility` answers.

    Attributes:
        window: the last day of the two weeks that it is of; null while none is complete, or without a store.
        pairs: of the vendor's products with OS builds, models, its own other products and those of vendors that share
            both ways; findings first.
        left_out: products of the vendor that were not looked at, because there are too many or they are too large.
    """

    vendors: list[str]
    window: Window | None
    pairs: list[VendorPair]
    left_out: int
