"""A decision is believed only if its signature verifies and it stands in its place; what is not is shown as such."""

import json

import msgspec
import pytest

from dashboards.incident import gather
from dashboards.incident.page import page
from dashboards.incident.source import IncidentError
from dashboards.incident.summary import summary
from dashboards.incident.timeline import time_line
from signals.killswitch.signing import PublicKeys
from support.incident_reports import ROLLOUT, Read, answers, forged, material, signed, switches, trail
from support.switches import KEYS, SIGNER, STRANGER


def test_every_recorded_decision_is_verified() -> None:
    found = material()
    assert [(one.number, one.believed, one.note) for one in found.decisions] == [(n, True, "") for n in range(1, 5)]
    assert Read(page(found)).text.count("✓ verified") == 4


def test_a_forged_kill_is_shown_as_not_believed_and_moves_nothing() -> None:
    said = answers()
    last = said["decisions"][-1]
    last["envelope"] = forged(last["envelope"], '"decision":"proceed"', '"decision":"kill"')
    found = material(said)
    assert [one.believed for one in found.decisions] == [True, True, True, False]
    text = Read(page(found)).text
    assert "✗ NOT BELIEVED" in text
    assert "claims released" in text
    assert "1 stored decision NOT BELIEVED" in dict(summary(found))["Now"]
    assert "The switch stands killed" in dict(summary(found))["Now"]
    assert not any("released" in moment.what for moment in time_line(found))


def test_the_signature_of_an_unknown_key_is_not_believed() -> None:
    said = answers()
    said["decisions"] = signed(switches(), STRANGER)
    found = material(said, keys=KEYS)
    assert not any(one.believed for one in found.decisions)
    assert dict(summary(found))["What happened"].endswith("was never stopped.")
    assert found.first_crash_ms is not None  # of the last verdict


@pytest.mark.parametrize(("place", "words"), [(1, "put in the place of"), (3, "put in the place of")])
def test_a_genuine_event_in_anothers_place_is_not_believed(place: int, words: str) -> None:
    said = answers()
    said["decisions"][place]["envelope"] = said["decisions"][0]["envelope"]
    found = material(said)
    assert not found.decisions[place].believed
    assert words in found.decisions[place].fault


def test_an_event_of_another_rollout_is_not_believed() -> None:
    said = answers()
    said["decisions"] = signed([msgspec.structs.replace(one, rollout="r-other") for one in switches()], SIGNER)
    assert not any(one.believed for one in material(said, keys=KEYS).decisions)


def test_an_event_of_another_lane_is_not_believed() -> None:
    found = material(lane="live")
    assert not any(one.believed for one in found.decisions)
    assert "lane" in found.decisions[0].fault


def test_of_two_events_under_one_number_the_second_is_not_believed() -> None:
    said = answers()
    first, *_ = signed(switches()[:1], SIGNER)
    other, *_ = signed([msgspec.structs.replace(switches()[0], sentence="another")], SIGNER)
    said["decisions"] = [first, first, other]
    found = material(said, keys=KEYS)
    assert [one.believed for one in found.decisions] == [True, False]
    assert "two different events" in found.decisions[1].fault


def test_events_that_the_store_lacks_are_said_and_the_rest_is_believed() -> None:
    said = answers()
    del said["decisions"][1]
    found = material(said)
    assert [one.believed for one in found.decisions] == [True] * 3
    assert "events before it are missing from the store" in Read(page(found)).text


def test_what_is_no_event_at_all_is_shown_as_that() -> None:
    said = answers()
    said["decisions"].append({"number": 5, "envelope": "<script>"})
    found = material(said)
    assert (found.decisions[-1].believed, found.decisions[-1].switch) == (False, None)
    assert "can't be read" in Read(page(found)).text


def test_an_entry_of_the_trail_that_names_another_content_is_told() -> None:
    entries = trail()
    changed = json.loads(entries[2])
    changed["sentence"] = "nothing happened"
    entries[2] = json.dumps(changed, separators=(",", ":")).encode()
    found = material(entries=entries)
    assert found.trail is not None
    assert any("altered" in one for one in found.trail.faults)
    assert "✗ NOT WHOLE:" in Read(page(found)).text


def test_an_event_without_its_entry_is_told() -> None:
    found = material(entries=trail()[:2])
    assert found.trail is not None
    assert found.trail.faults == [
        f"event {ROLLOUT}/3 has no entry that names its content",
        f"event {ROLLOUT}/4 has no entry that names its content",
    ]


def test_a_trail_that_is_longer_than_is_read_is_said_and_nothing_is_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gather, "TRAIL_MAX", 2)
    found = material()
    assert found.trail is not None
    assert (found.trail.faults, found.trail.read) == ([], 2)
    assert "longer than the 2 entries that were read" in Read(page(found)).text


def test_an_unknown_rollout_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(IncidentError, match="cordon query rollouts_latest"):
        material(answers() | {"rollout": []}, rollout="r-unknown")


def test_an_answer_in_another_form_is_an_error() -> None:
    with pytest.raises(IncidentError, match="another release"):
        material(answers() | {"pages": [{"owner": 1}]})


def test_without_any_key_nothing_is_believed() -> None:
    assert not any(one.believed for one in material(keys=PublicKeys([])).decisions)
