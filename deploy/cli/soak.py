"""`cordon soak`: how large a ring, and how long a soak, must be to notice a given harm with a given certainty.

Thin over `detectors.soak`. It answers with the policy's own thresholds: when the rollout would be held, when it would
be killed, and what the gate needs to let a healthy one through.
"""

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from detectors.gate_cell import HarmBound
from detectors.policy import Policies, Policy, PolicyError, load
from detectors.soak import certainty, crashes_needed, crossings, hours_needed, ring_needed
from detectors.soak_gate import GatePlan, gate_needed
from detectors.soak_policy import watches
from detectors.soak_question import Harm, Ring, SoakError, Watch, harm_of_probability

RINGS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


class Level(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One decision's part of the answer.

    Attributes:
        decision: hold or kill.
        log10_evidence: evidence that it takes.
        crashes_median: crashes of both arms until then, in half of the cases.
        crashes: the same with the asked-for certainty.
        devices: exposed devices of the ring.
        hours: hours of soak.
        certainty: the chance that the harm is noticed by then.
        why_not: why there is no answer.
    """

    decision: str
    log10_evidence: float
    crashes_median: int | None = None
    crashes: int | None = None
    devices: int | None = None
    hours: float | None = None
    certainty: float | None = None
    why_not: str = ""


class Answer(msgspec.Struct, kw_only=True):
    """What `cordon soak --json` prints."""

    harm: Harm
    ring: Ring
    certainty: float
    tenants: int
    levels: list[Level]
    gate: GatePlan
    gate_hours: float | None
    notes: list[str]


def _policy(path: Path | None, product: str | None) -> Policy:
    try:
        policies: Policies = load(path)
    except PolicyError as error:
        raise click.ClickException(str(error)) from error
    if product is None:
        return policies.default
    vendor, slash, name = product.partition("/")
    if not (vendor and slash and name):
        raise click.BadParameter(f"{product!r}: write VENDOR/PRODUCT", param_hint="--product")
    return policies.for_product(vendor, name)


def _level(
    name: str, harm: Harm, watch: Watch, ring: Ring, certain: float, devices: int | None, hours: float | None
) -> Level:
    """Answer for one decision what was left open: the ring, the hours, or the certainty where both were given."""
    level = Level(decision=name, log10_evidence=watch.log_needed / 2.302585092994046)
    try:
        if devices is None:
            assert hours is not None
            level.devices, level.hours, level.certainty = ring_needed(harm, watch, ring, hours, certain), hours, certain
        elif hours is None:
            level.hours, level.devices = hours_needed(harm, watch, ring, devices, certain), devices
            level.certainty = certain
        else:
            level.devices, level.hours = devices, hours
            level.certainty = certainty(harm, watch, ring, devices, hours)
        chances = crossings(harm.ratio, ring.share_of(level.devices), watch)
        level.crashes_median, level.crashes = crashes_needed(chances, 0.5), crashes_needed(chances, certain)
    except SoakError as error:
        level.why_not = str(error)
    return level


def _notes(policy: Policy, tenants: int) -> list[str]:
    notes = []
    if policy.dry_run:
        notes.append("dry_run is true: every decision is marked as not to be obeyed")
    if tenants < policy.tenants_least and not policy.trusted_tenants:
        notes.append(
            f"{tenants} tenants < tenants_least {policy.tenants_least}: no evidence kills, it only holds; "
            f"name the tenant in trusted_tenants, or lower tenants_least"
        )
    notes.append("new signatures and silence are not counted on: harm that shows in them is noticed sooner")
    return notes


def _table(answer: Answer) -> Table:
    harm = answer.harm
    title = f"rate ratio {harm.ratio:g} at {harm.crashes_per_device_day:g} crashes per device and day"
    if harm.window_hours is not None:
        title += f", for {harm.window_hours:g} h (each exposed device crashes with {harm.chance(1e9):.2g})"
    table = Table(title=title)
    for column in ("decision", "evidence", "crashes (half / sure)", "ring", "hours", "certainty"):
        table.add_column(column, justify="left" if column == "decision" else "right")
    for level in answer.levels:
        table.add_row(
            level.decision,
            f"10^{level.log10_evidence:.1f}",
            f"{_or_dash(level.crashes_median)} / {_or_dash(level.crashes)}",
            "-" if level.devices is None else f"{level.devices:,}",
            "-" if level.hours is None else _hours(level.hours),
            "-" if level.certainty is None else f"{100 * level.certainty:.3g} %",
        )
    return table


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{60 * hours:.1f} min"


def _gate_text(answer: Answer) -> str:
    gate = answer.gate
    text = f"gate: each cell of the next ring needs {gate.device_days_quiet:,.0f} exposed device-days if nobody crashes"
    if gate.device_days is None:
        return text + "; at this background only the rate ratio can show health, so leave controls in every cell"
    text += f", {gate.device_days:,.0f} at this background ({100 * answer.certainty:g} %)"
    if answer.gate_hours is not None:
        text += f": {_hours(answer.gate_hours)} h if the whole ring is one cell"
    return text


def _ring(share: float | None, fleet: int | None) -> Ring:
    if share is None and fleet is None:
        share = 0.1
    return Ring(share=share, fleet=fleet)


@click.command()
@click.option("--ratio", type=float, default=None, help="Rate ratio of the harm: 2 is twice as many crashes.")
@click.option("--crash-probability", type=float, default=None, help="Or: chance that an exposed device crashes.")
@click.option("--within-hours", type=float, default=1.0, show_default=True, help="... within so many hours.")
@click.option(
    "--background", type=float, default=0.001, show_default=True, help="Crashes per device and day without the update."
)
@click.option("--share", type=float, default=None, help="Exposed share of devices at risk; 0.1 where not given.")
@click.option("--fleet", type=int, default=None, help="Or: devices in all, of which the ring is a part.")
@click.option("--devices", type=int, default=None, help="Exposed devices of the ring; asked for where not given.")
@click.option("--hours", type=float, default=None, help="Hours of soak; asked for where not given.")
@click.option("--certainty", "certain", type=float, default=0.95, show_default=True, help="Chance to notice the harm.")
@click.option("--tenants", type=int, default=10, show_default=True, help="Tenants of equal size among the exposed.")
@click.option("--alpha", type=float, default=None, help="False alarms accepted, for hold and kill; the policy's else.")
@click.option("--policy", "path", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Policy file.")
@click.option("--product", default=None, metavar="VENDOR/PRODUCT", help="Use this product's policy.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def soak(
    ratio: float | None,
    crash_probability: float | None,
    within_hours: float,
    background: float,
    share: float | None,
    fleet: int | None,
    devices: int | None,
    hours: float | None,
    certain: float,
    tenants: int,
    alpha: float | None,
    path: Path | None,
    product: str | None,
    as_json: bool,
) -> None:
    """Say how large a ring and how long a soak must be to notice a harm.

    Give --hours to learn the ring, --devices to learn the hours, both to learn the certainty, neither for a table of
    rings. Ends with 1 if the harm cannot be noticed.
    """
    if (ratio is None) == (crash_probability is None):
        raise click.UsageError("give the harm: either --ratio or --crash-probability")
    if hours is not None and not hours > 0:
        raise click.BadParameter("give a time over 0", param_hint="--hours")
    policy = _policy(path, product)
    try:
        harm = (
            Harm(ratio=ratio, crashes_per_device_day=background)
            if ratio is not None
            else harm_of_probability(crash_probability or 0.0, within_hours, background)
        )
        answer = answered(harm, _ring(share, fleet), policy, devices, hours, certain, tenants, alpha)
    except (SoakError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _print(answer, as_json)


def answered(
    harm: Harm,
    ring: Ring,
    policy: Policy,
    devices: int | None,
    hours: float | None,
    certain: float,
    tenants: int,
    alpha: float | None,
) -> Answer:
    """Answer for holds, kills and the gate.

    Raises:
        SoakError: the question makes no sense.
    """
    rings = [devices]
    if devices is None and hours is None:
        rings = [size for size in RINGS if size <= ring.devices_max]
    levels = [
        _level(name, harm, watch, ring, certain, size, hours)
        for size in rings
        for name, watch in watches(policy, tenants, alpha).items()
    ]
    bound = HarmBound(ratio=policy.gate.ratio, excess_per_device_day=policy.gate.excess_per_device_day)
    # A policy that takes the word of one tenant leaves nobody out at the gate either.
    groups = 1 if policy.tenants_least == 1 else tenants
    gate = gate_needed(bound, policy.gate.alpha, harm.crashes_per_device_day, certain, groups)
    size = devices or max((level.devices or 0 for level in levels), default=0)
    plannable = len(rings) == 1 and size and gate.device_days is not None
    return Answer(
        harm=harm,
        ring=ring,
        certainty=certain,
        tenants=tenants,
        levels=levels,
        gate=gate,
        gate_hours=24.0 * (gate.device_days or 0.0) / size if plannable else None,
        notes=_notes(policy, tenants),
    )


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        Console(width=110).print(_table(answer))
        for text in dict.fromkeys(level.why_not for level in answer.levels if level.why_not):
            click.echo(f"no answer: {text}")
        click.echo(_gate_text(answer))
        for note in answer.notes:
            click.echo(f"note: {note}")
    if all(level.why_not for level in answer.levels):
        if not as_json:
            raise click.ClickException("this harm cannot be noticed so; see above for what to change")
        raise click.exceptions.Exit(1)
