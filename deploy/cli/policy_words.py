"""What a policy would do, in words and numbers: pure functions of the policy, for `cordon policy check`."""

import math

import msgspec

from detectors.gate_cell import HarmBound
from detectors.policy import Policy
from detectors.soak import crashes_in_a_row, crashes_needed, crossings
from detectors.soak_gate import GatePlan, gate_needed
from detectors.soak_policy import POOLED_SHARE, watches
from detectors.soak_question import SoakError, Watch

RATIOS = (2.0, 10.0, 100.0, 1000.0)
SHARES = (0.01, 0.1, 0.5)
_FLEET_SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_RINGS = (1_000, 10_000)
_QUIET_BACKGROUND = 1e-9


class CrashesNeeded(msgspec.Struct, frozen=True):
    """Crashes of both arms until half of the rollouts with this harm are decided; None where they never are."""

    ratio: float
    share: float
    crashes: int | None


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """One decision's threshold.

    Attributes:
        decision: hold or kill.
        alpha: false decisions accepted, as a part of the rollouts that are no worse than tolerated.
        log10_evidence: evidence needed in the mean of the methods.
        log10_alone: what the rate ratio of all cells needs if no other method sees anything.
        crashes: see `CrashesNeeded`.
        fleet_least: the smallest fleet in which it can happen at all, if every exposed device crashes; None if none.
        devices_least: how many exposed devices crash then.
    """

    decision: str
    alpha: float
    log10_evidence: float
    log10_alone: float
    crashes: list[CrashesNeeded]
    fleet_least: int | None
    devices_least: int | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would do."""

    product: str
    digest: str
    tenants: int
    thresholds: list[Threshold]
    holds: list[str]
    proceeds: list[str]
    warnings: list[str]


def explain(policy: Policy, product: str, tenants: int, rollouts_per_year: int) -> Explanation:
    """Return what the policy would do in a fleet of so many tenants with so many rollouts a year."""
    return Explanation(
        product=product,
        digest=policy.digest,
        tenants=tenants,
        thresholds=[_threshold(name, watch) for name, watch in watches(policy, tenants).items()]
        if policy.weights.rate_ratio > 0
        else [],
        holds=_holds(policy),
        proceeds=_proceeds(policy, tenants),
        warnings=warnings(policy, tenants, rollouts_per_year),
    )


def _threshold(name: str, watch: Watch) -> Threshold:
    crashes = [CrashesNeeded(ratio, share, _crashes(ratio, share, watch)) for share in SHARES for ratio in RATIOS]
    fleet, devices = smallest_fleet(watch)
    return Threshold(
        decision=name,
        alpha=watch.alpha,
        log10_evidence=-math.log10(watch.alpha),
        log10_alone=watch.log_needed / math.log(10.0),
        crashes=crashes,
        fleet_least=fleet,
        devices_least=devices,
    )


def smallest_fleet(watch: Watch) -> tuple[int, int] | tuple[None, None]:
    """Return the smallest fleet in which crashes alone can suffice, and how many exposed devices all crash in it."""
    fleets = [
        (math.ceil(devices / share), devices)
        for share in _FLEET_SHARES
        if (devices := crashes_in_a_row(share, watch)) is not None
    ]
    return min(fleets) if fleets else (None, None)


def _crashes(ratio: float, share: float, watch: Watch) -> int | None:
    try:
        return crashes_needed(crossings(ratio, share, watch), 0.5)
    except SoakError:
        return None


def _holds(policy: Policy) -> list[str]:
    late = "the setting activity_late_seconds" if policy.activity_late_seconds is None else _seconds(
        policy.activity_late_seconds
    )  # fmt: skip
    texts = [
        f"evidence of 10^{policy.log10_to_hold:.1f} holds; from 10^{policy.log10_to_watch:.1f} on it is called rising",
        f"activity that lags behind crashes by more than {late}",
        "crashes where nothing bounds who is exposed",
        "suspects that always travel together, where one of them is guilty",
    ]
    if policy.devices_least > 1:
        texts.append(f"evidence for a kill from fewer than {policy.devices_least} exposed devices")
    if policy.tenants_least > 1:
        texts.append(
            f"evidence for a kill that fewer than {policy.tenants_least} tenants are behind, {_unless(policy)}"
        )
    return texts


def _unless(policy: Policy) -> str:
    if policy.trusted_tenants:
        return f"unless it is of {', '.join(policy.trusted_tenants)}"
    return "or that does not suffice without any one tenant group"


def gate_plan(policy: Policy, tenants: int) -> GatePlan:
    """Return what the gate needs of a cell in which nobody crashes."""
    bound = HarmBound(ratio=policy.gate.ratio, excess_per_device_day=policy.gate.excess_per_device_day)
    return gate_needed(bound, policy.gate.alpha, _QUIET_BACKGROUND, 0.5, 1 if policy.tenants_least == 1 else tenants)


def _proceeds(policy: Policy, tenants: int) -> list[str]:
    gate, days = policy.gate, gate_plan(policy, tenants).device_days_quiet
    sizes = sorted({policy.proceed_exposed_least, *_RINGS})
    least = [(size, max(policy.proceed_seconds / 3600.0, gate.latency_hours, 24.0 * days / size)) for size in sizes]
    hours = ", ".join(f"{hours:,.1f} h for {size:,} devices" for size, hours in least)
    return [
        f"{policy.proceed_exposed_least:,} exposed devices, {_seconds(policy.proceed_seconds)} since the latest ring "
        f"began, and every partition of devices heard and whole",
        f"in every cell of the next ring that is {100 * gate.share_least:g} % of it or more, harm (a rate ratio of "
        f"{gate.ratio:g} and {gate.excess_per_device_day:g} crashes per exposed device and day more) ruled out at "
        f"{gate.alpha:g}: {days:,.0f} exposed device-days there if nobody crashes",
        f"exposed devices heard from after a boot ({gate.boots_least} or more), after a wake ({gate.wakes_least} or "
        f"more), and {gate.latency_hours:g} h after they were exposed",
        f"so at least, if nobody crashes and the ring is one cell: {hours}",
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"


def warnings(policy: Policy, tenants: int, rollouts_per_year: int) -> list[str]:
    """Return what is dangerous in the policy, each with what it leads to."""
    return [*_of_errors(policy, rollouts_per_year), *_of_evidence(policy, tenants), *_of_proceeding(policy)]


def _of_errors(policy: Policy, rollouts_per_year: int) -> list[str]:
    found = []
    if policy.dry_run:
        found.append("dry_run is true: every decision is marked as not to be obeyed, so nothing is stopped")
    kills = policy.alpha_kill * rollouts_per_year
    if kills > policy.false_kills_per_year:
        found.append(
            f"alpha_kill {policy.alpha_kill:g} over {rollouts_per_year:,} rollouts a year would be {kills:.2g} false "
            f"kills > false_kills_per_year {policy.false_kills_per_year:g}: the budget runs low, and later rollouts "
            f"need more evidence; lower alpha_kill to {policy.false_kills_per_year / rollouts_per_year:.1g}"
        )
    if policy.false_kills_per_year > 0.5:
        found.append(f"false_kills_per_year {policy.false_kills_per_year:g}: a good update is killed every other year")
    if policy.alpha_kill > 1e-3:
        found.append(f"alpha_kill {policy.alpha_kill:g}: one healthy rollout in {1 / policy.alpha_kill:,.0f} is killed")
    holds = policy.alpha_hold * rollouts_per_year
    if holds > 12:
        found.append(
            f"alpha_hold {policy.alpha_hold:g}: {holds:.0f} false holds a year in {rollouts_per_year:,} rollouts"
        )
    if policy.alpha_hold == policy.alpha_kill:
        found.append("alpha_hold equals alpha_kill: nothing is held before it is killed")
    return found


def _of_evidence(policy: Policy, tenants: int) -> list[str]:
    found = []
    if policy.tolerated_ratio < 1.5:
        found.append(
            f"tolerated_ratio {policy.tolerated_ratio:g} < 1.5: controls that are merely switched off look like harm"
        )
    if policy.tolerated_ratio > 3:
        found.append(f"tolerated_ratio {policy.tolerated_ratio:g}: an update that triples crashes is never stopped")
    if policy.share_least < 0.005:
        found.append(f"share_least {policy.share_least:g}: counts of a rollout's first seconds make false kills")
    if policy.devices_least == 1:
        found.append("devices_least 1: one device can kill a rollout")
    if policy.tenants_least == 1 and tenants > 1:
        found.append(f"tenants_least 1 among {tenants} tenants: one tenant that lies kills, or passes, for all others")
    if policy.tenants_least > tenants and not policy.trusted_tenants:
        found.append(f"tenants_least {policy.tenants_least} > {tenants} tenants: nothing is ever killed, only held")
    if policy.trusted_tenants and policy.tenants_least > 1:
        found.append(f"trusted_tenants: the word of {', '.join(policy.trusted_tenants)} alone kills everywhere")
    if policy.weights.rate_ratio == 0:
        found.append("weights.rate_ratio 0: crashes are no evidence, only silence, new signatures and the baseline are")
    if policy.weights.silence == 0:
        found.append("weights.silence 0: machines in a boot loop cannot report, and go unnoticed")
    if policy.weights.baseline > 0.5:
        found.append(f"weights.baseline {policy.weights.baseline:g}: mostly the past counts, not today's controls")
    if policy.silence.control_share_limit > 0.5:
        found.append(
            f"silence.control_share_limit {policy.silence.control_share_limit:g}: outages of a site are scored"
        )
    if policy.activity_late_seconds is not None and policy.activity_late_seconds > 300:
        found.append(
            f"activity_late_seconds {policy.activity_late_seconds:g}: crashes ahead of installs forge evidence"
        )
    return found


def _of_proceeding(policy: Policy) -> list[str]:
    found, gate = [], policy.gate
    if policy.proceed_exposed_least < 50:
        found.append(f"proceed_exposed_least {policy.proceed_exposed_least}: too few devices to have met any harm")
    if policy.proceed_seconds < 600:
        found.append(f"proceed_seconds {policy.proceed_seconds:g}: rings follow before crashes are reported")
    if gate.alpha > 0.1:
        found.append(f"gate.alpha {gate.alpha:g}: one harmful ring in {1 / gate.alpha:.0f} may pass")
    if gate.ratio > 3 or gate.excess_per_device_day > 0.05:
        found.append(
            f"gate.ratio {gate.ratio:g} and gate.excess_per_device_day {gate.excess_per_device_day:g}: harm below "
            f"either passes to the next ring"
        )
    if gate.boots_least == 0:
        found.append("gate.boots_least 0: harm that only a boot brings out passes")
    if gate.wakes_least == 0:
        found.append("gate.wakes_least 0: harm that only a wake brings out passes")
    if gate.share_least > 0.05:
        found.append(f"gate.share_least {gate.share_least:g}: harm in a smaller part of the fleet passes")
    return found


# What the rate ratio alone needs is 1 / (weight x POOLED_SHARE) times the threshold.
POOLED_NOTE = f"{POOLED_SHARE:g} of the rate ratio's weight is that of all cells, the rest that of margin cells"
