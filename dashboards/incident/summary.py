"""The report in five lines, and what it could not see.

From `material` to the page. Invariant: whatever is not known is said; no line reads better than the facts.
"""

from typing import Final

from dashboards.incident.material import Material
from dashboards.incident.rows import PageRow
from dashboards.incident.words import count, moment, power, span
from detectors.verdict import REASON_DOCS, DecisionWord, Reason
from signals.events import Switch

# Reasons that mean that something was not seen.
_UNSEEN: Final = ("activity_late", "no_telemetry", "no_exposure_bound", "no_control", "detector_failed")


def summary(material: Material) -> list[tuple[str, str]]:
    """Return five lines for whoever has no time: (what is asked, the answer)."""
    return [
        ("What happened", _happened(material)),
        ("Who was hit", _hit(material)),
        ("How sure", _sure(material)),
        ("Who was told", _who(material)),
        ("Now", _now(material)),
    ]


def _happened(material: Material) -> str:
    rollout, decided = material.rollout, material.deciding
    update = f"The {rollout.update_kind} update {rollout.vendor} {rollout.product} {rollout.version}"
    if decided is None or decided.decision not in ("kill", "hold"):
        stops = [one for one in material.switches if one.decision in ("kill", "hold")]
        if not stops:
            return f"{update} was never stopped."
        one = stops[-1]
        return f"{update} was {one.state.value} by {one.name or one.cause}: {one.sentence}."
    dry = " in a dry run, which nobody obeys" if decided.dry_run else ""
    name = update[:1].lower() + update[1:]
    hold = material.first(DecisionWord.HOLD) if decided.decision == "kill" else None
    before = _since_crash(material, hold) if hold is not None and hold.number < decided.number else ""
    after = _since_crash(material, decided)
    if before and after:
        said = f"held {name}{before} after the first crash, and killed it after{after}"
    else:
        said = f"{'killed' if decided.decision == 'kill' else 'held'} {name}"
        said += f"{after} after the first crash" if after else ""
    return f"Cordon {said}{dry}."


def _since_crash(material: Material, switch: Switch) -> str:
    first = material.first_crash_ms
    return "" if first is None or switch.watermark_ms < first else f" {span(switch.watermark_ms - first)}"


def _hit(material: Material) -> str:
    everybody = material.everybody
    said = f"{count(material.exposed, 'device')} had been reached"
    said += f"; {count(everybody.crashed, 'device')} reported a crash with the update on disk"
    if material.silent is not None:
        said += f", and {material.silent:,} more had been silent for a quarter of an hour"
    rings = [one.name for one in material.reach if one.dimension == "ring" and one.crashed]
    return said + (f". Rings with crashes: {', '.join(rings)}." if rings else ".")


def _sure(material: Material) -> str:
    evidence, decided = material.evidence, material.deciding
    if evidence is None:
        return "No verdict with numbers is stored."
    needed = evidence.log10_needed_to_kill
    if decided is not None and decided.decision == "hold":
        needed = evidence.log10_needed_to_hold
    chance = (
        ""
        if evidence.log10_evidence < needed
        else (f" A harmless update reaches that by chance at most once in {10**needed:,.0f}.")
    )
    silent = next((one for one in evidence.methods if one.name == "silence"), None)
    silence = ""
    if silent is not None and silent.events_exposed:
        silence = f"; {silent.events_exposed:,} with it and {silent.events_control:,} without fell silent"
    return (
        f"Evidence {power(evidence.log10_evidence)} where {power(needed)} is needed: first crashes of "
        f"{evidence.crashes_exposed:,} devices with the update and {evidence.crashes_control:,} without"
        f"{silence}.{chance}"
    )


def _who(material: Material) -> str:
    delivered = [one for one in material.pages if one.answered == "delivered"]
    paged = sorted({one.owner for one in delivered if one.step == "trigger"})
    if not material.pages:
        return "No page was sent: nothing of the kind is stored."
    refused = len(material.pages) - len(delivered)
    said = f"{', '.join(paged)} (first at {_first(delivered)} UTC)" if paged else "Nobody was paged"
    return f"{said}; {count(len(delivered), 'delivery', 'deliveries')}, {count(refused, 'failed attempt')}."


def _first(pages: list[PageRow]) -> str:
    return moment(min(one.at_ms for one in pages if one.step == "trigger"), day=False)


def _now(material: Material) -> str:
    last = material.last
    if last is None:
        return "The switch never moved."
    state = (last.whole or last.state).value
    by = f" by {last.name or last.principal}" if last.cause == "person" else ""
    said = f"The switch stands {state}{by}, since event {last.number}"
    if last.decision == "kill":
        said += "; only a person releases it"
    if material.recovery:
        back = material.recovery[-1]
        said += f". Of its devices {back.recovered:,} have recovered, {back.looping:,} still crash, "
        said += f"{back.silent:,} are silent, crashed or not"
    forged = sum(not one.believed for one in material.decisions)
    return said + (f". {count(forged, 'stored decision')} NOT BELIEVED, see Decisions." if forged else ".")


def unseen(material: Material) -> list[str]:
    """Return what the report can't tell, a sentence each."""
    said = []
    untold = material.exposed - material.everybody.crashed
    if untold > 0:
        heard = (
            "" if material.silent is None else f" {material.silent:,} of them had been silent for a quarter of an hour."
        )
        said.append(
            f"What became of the {count(untold, 'exposed device')} that reported no crash: a machine that boots in a "
            f"loop can't report.{heard}"
        )
    for one in material.reasons:
        if one.reason in _UNSEEN:
            doc = REASON_DOCS[Reason(one.reason)]
            said.append(
                f"{one.reason}: {count(one.verdicts, 'verdict')} between {moment(one.first_ms)} and "
                f"{moment(one.last_ms)} UTC. {doc}"
            )
    said += [f"Event {one.number}: {one.note}." for one in material.decisions if one.note]
    if material.trail is None:
        said.append("The audit trail: the report was written from the store alone.")
    if material.policy is None:
        said.append("The policy's values: the policy that decided is not the one at hand; only its digest is known.")
    if any(not one.frames for one in material.signatures):
        said.append("Stacks of some signatures: their crashes carried none, or raw crashes are no longer kept.")
    if material.rollout.bound == "none":
        said.append("Who was offered the update: nobody declared it, and only `installed` was ever seen.")
    if not material.recovery:
        said.append("Devices that came back: nothing is stored of it.")
    said.append(
        "Crashes that never reached Cordon. Devices by ring, OS build and tenant are what they told of themselves."
    )
    return said + material.cut
