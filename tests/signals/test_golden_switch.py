"""The bytes of version 1 on the wire: written as they were, and read as they were."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.verdict import DecisionWord, Verdict
from ingest.events import encoder
from signals.events import Action, CloudEvent, Command, Envelope, Switch, SwitchPlace, SwitchRecord, SwitchState
from signals.killswitch.event import cloud_event
from signals.killswitch.verify import open_event
from support.switches import KEYS, SIGNER, command, verdict

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


def an_envelope() -> Envelope:
    return SIGNER.sign(encoder.encode(cloud_event(a_switch())))


WIRE: dict[str, tuple[Any, type[Any]]] = {
    "switch": (a_switch(), Switch),
    "cloud_event": (cloud_event(a_switch()), CloudEvent),
    "envelope": (an_envelope(), Envelope),
    "switch_record": (SwitchRecord(envelope=an_envelope(), offsets={"verdicts/0": 7, "commands/0": 2}), SwitchRecord),
    "switch_place": (SwitchPlace(offsets={"commands/0": 2}, commands=[("c-1", "applied")]), SwitchPlace),
    "command": (command(Action.HOLD, "c-1"), Command),
    "verdict": (verdict(DecisionWord.KILL), Verdict),
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


@pytest.mark.parametrize("name", ["envelope", "switch_record"])
def test_an_envelope_from_before_still_verifies(name: str) -> None:
    kind = WIRE[name][1]
    read = msgspec.json.decode((GOLDEN / "before" / f"{name}.json").read_bytes(), type=kind)
    assert open_event(read if isinstance(read, Envelope) else read.envelope, KEYS).switch == a_switch()


def test_an_event_of_before_armed_was_written_reads_as_armed() -> None:
    text = (GOLDEN / "switch.json").read_bytes().replace(b'"armed":true,', b"")
    assert msgspec.json.decode(text, type=Switch) == a_switch()
