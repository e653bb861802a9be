"""The bytes of version 1 on the wire: written as they were, and read as they were."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, Verdict
from ingest.events import encoder
from signals.events import (
    Action,
    AuditEntry,
    CloudEvent,
    Command,
    Envelope,
    Lease,
    LeaseEvent,
    Mode,
    PendingRelease,
    ScopedStop,
    Switch,
    SwitchPlace,
    SwitchRecord,
    SwitchState,
)
from signals.killswitch.event import cloud_event, lease_event
from signals.killswitch.standing import standing_after
from signals.killswitch.verify import open_event
from support.switches import KEYS, SIGNER, START_MS, command, verdict

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"


def a_switch() -> Switch:
    given = verdict(DecisionWord.KILL)
    return Switch(
        rollout=given.rollout,
        number=3,
        previous_digest="ab" * 32,
        lane="live",
        vendor=given.vendor,
        product=given.product,
        version=given.version,
        state=SwitchState.KILLED,
        previous_state=SwitchState.HELD,
        decision=DecisionWord.KILL,
        cause="detector",
        reason=given.reason.value,
        sentence=given.sentence,
        watermark_ms=given.at_ms,
        decided_ms=given.at_ms + 137,
        policy=given.policy,
        evidence=given.evidence,
    )


def a_part() -> Switch:
    """Return an event about a part, with all that a release before parts could not say."""
    part, build = Scope(ring="canary", tenant="acme"), Scope(os_build="22631")
    switch = a_switch()
    switch.state, switch.previous_state, switch.decision = SwitchState.RELEASED, SwitchState.KILLED, DecisionWord.HOLD
    switch.cause, switch.action, switch.evidence = "person", Action.APPROVE, None
    switch.scope, switch.whole, switch.whole_decision = part, SwitchState.HELD, DecisionWord.HOLD
    switch.whole_stop = ScopedStop(
        scope=WHOLE, state=SwitchState.HELD, number=1, by="person", until_ms=START_MS + 60_000, beneath=True
    )
    switch.stops = [ScopedStop(scope=build, state=SwitchState.HELD, number=2)]
    switch.dry_stops = [ScopedStop(scope=WHOLE, state=SwitchState.KILLED, number=1)]
    switch.released, switch.mode, switch.mode_until_ms = [part], Mode.DRY_RUN, START_MS + 90_000
    switch.name, switch.principal, switch.approved_by, switch.command_id = "Ada", "ops-1", "lead-1", "c-2"
    return switch


def a_place() -> SwitchPlace:
    request = PendingRelease(
        command_id="c-1", rollout=a_switch().rollout, principal="ops-1", name="Ada", reason="mended", at_ms=1,
        expires_ms=2, scope=Scope(ring="canary"),
    )  # fmt: skip
    commands = [("c-1", "pending")]
    return SwitchPlace(offsets={"commands/0": 2}, commands=commands, pending=[request], audit=(3, "ab" * 32))


def an_entry() -> AuditEntry:
    return AuditEntry(
        number=4, previous_digest="ab" * 32, at_ms=START_MS, actor="person", principal="ops-1", name="Ada",
        action="kill", rollout=a_switch().rollout, scope=Scope(ring="canary"), result="applied", reason="bad",
        sentence="Ada asked for kill: bad", event_id=f"{a_switch().rollout}/3", event_digest="cd" * 32,
        command_id="c-1",
    )  # fmt: skip


def an_envelope() -> Envelope:
    return SIGNER.sign(encoder.encode(cloud_event(a_switch())))


def a_lease() -> Lease:
    return Lease(
        rollout=a_switch().rollout,
        lane="live",
        number=3,
        digest="ab" * 32,
        decision=DecisionWord.PROCEED,
        issued_ms=START_MS,
        expires_ms=START_MS + 60_000,
        watermark_ms=START_MS - 250,
        heard_share=0.875,
        stops=[ScopedStop(scope=Scope(ring="canary"), state=SwitchState.HELD, number=2)],
        rings=["canary", "broad"],
    )


WIRE: dict[str, tuple[Any, type[Any]]] = {
    "switch": (a_switch(), Switch),
    "cloud_event": (cloud_event(a_switch()), CloudEvent),
    "envelope": (an_envelope(), Envelope),
    "switch_record": (SwitchRecord(envelope=an_envelope(), offsets={"verdicts/0": 7, "commands/0": 2}), SwitchRecord),
    "switch_place": (SwitchPlace(offsets={"commands/0": 2}, commands=[("c-1", "applied")]), SwitchPlace),
    "command": (command(Action.HOLD, "c-1"), Command),
    "verdict": (verdict(DecisionWord.KILL), Verdict),
    "switch_of_part": (a_part(), Switch),
    "switch_place_pending": (a_place(), SwitchPlace),
    "audit_entry": (an_entry(), AuditEntry),
    "lease_event": (lease_event(a_lease()), LeaseEvent),
    "command_of_part": (
        command(Action.HOLD, "c-1", scope=Scope(ring="canary"), until_ms=START_MS + 60_000),
        Command,
    ),
}


@pytest.mark.parametrize("name", WIRE)
def test_the_bytes_written_are_the_golden_ones(name: str) -> None:
    assert encoder.encode(WIRE[name][0]) + b"\n" == (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", WIRE)
def test_the_golden_bytes_are_read_as_what_they_say(name: str) -> None:
    value, kind = WIRE[name]
    assert msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes(), type=kind) == value


def test_the_golden_envelope_verifies() -> None:
    envelope = msgspec.json.decode((GOLDEN / "envelope.json").read_bytes(), type=Envelope)
    assert open_event(envelope, KEYS).switch == a_switch()


@pytest.mark.parametrize("name", ["verdict", "switch", "cloud_event"])
def test_bytes_from_before_attribution_and_the_gate_are_read(name: str) -> None:
    """The release before said less in its evidence; what it did not say stands at its default."""
    value, kind = WIRE[name]
    assert msgspec.json.decode((GOLDEN / "before" / f"{name}.json").read_bytes(), type=kind) == value


@pytest.mark.parametrize("name", ["verdict", "switch", "cloud_event"])
def test_bytes_from_before_stacks_are_read(name: str) -> None:
    """Evidence of the release before has no frames; of those nothing is told."""
    value, kind = WIRE[name]
    assert b'"stacks"' not in (GOLDEN / "before_frames" / f"{name}.json").read_bytes()
    assert msgspec.json.decode((GOLDEN / "before_frames" / f"{name}.json").read_bytes(), type=kind) == value


@pytest.mark.parametrize("folder", ["before", "before_frames"])
@pytest.mark.parametrize("name", ["envelope", "switch_record"])
def test_an_envelope_from_before_still_verifies(name: str, folder: str) -> None:
    kind = WIRE[name][1]
    read = msgspec.json.decode((GOLDEN / folder / f"{name}.json").read_bytes(), type=kind)
    assert open_event(read if isinstance(read, Envelope) else read.envelope, KEYS).switch == a_switch()


@pytest.mark.parametrize("name", ["switch", "cloud_event", "switch_place"])
def test_bytes_from_before_parts_and_people_are_read(name: str) -> None:
    value, kind = WIRE[name]
    assert msgspec.json.decode((GOLDEN / "before_parts" / f"{name}.json").read_bytes(), type=kind) == value


def test_a_standing_of_before_parts_is_understood() -> None:
    """A process of this release goes on where one of the release before stopped."""
    record = msgspec.json.decode((GOLDEN / "before_parts" / "switch_record.json").read_bytes(), type=SwitchRecord)
    standing = standing_after(open_event(record.envelope, KEYS).switch, "ab")
    assert (standing.state, standing.killed, standing.strictest) == (SwitchState.KILLED, True, DecisionWord.KILL)
    assert (standing.number, standing.armed, standing.mode, standing.parts) == (3, True, Mode.LIVE, {})


def test_a_command_of_before_names_no_token() -> None:
    asked = msgspec.json.decode((GOLDEN / "before_parts" / "command.json").read_bytes(), type=Command)
    assert (asked.action, asked.principal, asked.roles, asked.scope) == (Action.HOLD, "", [], WHOLE)


def test_an_event_of_before_armed_was_written_reads_as_armed() -> None:
    text = (GOLDEN / "switch.json").read_bytes().replace(b'"armed":true,', b"")
    assert msgspec.json.decode(text, type=Switch) == a_switch()
