"""Incidents of every kind: never stopped, held only, stopped by a person, a dry run, nothing known; and no pages."""

from typing import Any

import msgspec

from dashboards.incident.page import page
from dashboards.incident.plots import plots
from dashboards.incident.summary import summary, unseen
from dashboards.incident.timeline import time_line
from dashboards.incident.words import span
from detectors.policy import load
from detectors.verdict import DecisionWord
from signals.events import Action, Switch, SwitchState
from support.incident_reports import Read, answers, material, signed, switches
from support.switches import KEYS, SIGNER


def told(*said: Switch) -> dict[str, str]:
    """Return the summary where the switch moved so."""
    found = answers() | {"decisions": signed(said, SIGNER)}
    made = material(found, keys=KEYS)
    assert Read(page(made)).named("svg")
    return dict(summary(made))


def test_five_lines_for_a_manager() -> None:
    assert list(dict(summary(material()))) == ["What happened", "Who was hit", "How sure", "Who was told", "Now"]


def test_the_time_line_is_in_order_and_tells_every_turn() -> None:
    line = time_line(material())
    known = [one.event_ms for one in line if one.event_ms]
    assert known == sorted(known)
    whats = [one.what for one in line]
    turns = [
        "first crash",
        "watching → held",
        "crowdstrike paged (high)",
        "held → killed",
        "crowdstrike paged (critical)",
    ]
    assert [one for one in whats if one in turns] == turns
    assert whats.index("crowdstrike told that it is over") > whats.index("killed → released")


def test_a_ring_behind_the_stop_was_to_begin_and_did_not() -> None:
    whats = [one.what for one in time_line(material())]
    assert "ring canary begins" in whats
    assert "ring broad was to begin" in whats


def test_a_rollout_that_was_never_stopped() -> None:
    said = told(switches()[0])
    assert said["What happened"].endswith("was never stopped.")
    assert said["Now"].startswith("The switch stands watching")


def test_a_hold_alone_is_measured_by_what_a_hold_needs() -> None:
    said = told(*switches()[:2])
    assert "2024-07-19.0409 171 s after the first crash" in said["What happened"]
    assert "where 10^3.0 is needed" in said["How sure"]


def test_a_dry_run_says_that_nobody_obeys() -> None:
    dry = [msgspec.structs.replace(one, dry_run=True) for one in switches()[:3]]
    assert "in a dry run, which nobody obeys" in told(*dry)["What happened"]


def test_a_stop_by_a_person_names_the_person() -> None:
    hold = msgspec.structs.replace(
        switches()[0], cause="person", name="Ada", action=Action.HOLD, state=SwitchState.HELD, evidence=None,
        whole=SwitchState.HELD, decision=DecisionWord.HOLD, sentence="Ada asked for hold: seen on three desks",
    )  # fmt: skip
    assert "was held by Ada: Ada asked for hold: seen on three desks" in told(hold)["What happened"]


def test_nothing_but_the_declaration_is_a_report_too() -> None:
    nothing: dict[str, list[dict[str, Any]]] = {name: [] for name in answers()} | {"rollout": answers()["rollout"]}
    made = material(nothing, entries=[])
    text = Read(page(made)).text
    assert plots(made) == []
    for words in (
        "The switch never moved.",
        "No verdict with numbers is stored.",
        "No event is stored.",
        "No page was sent",
    ):
        assert words in text


def test_who_was_not_reached_at_once_is_told() -> None:
    found = answers()
    failed = dict(found["pages"][0], answered="refused", status=400, answer="invalid routing key", attempt=2)
    found["pages"] = [failed]
    made = material(found)
    assert dict(summary(made))["Who was told"] == "Nobody was paged; 0 deliveries, 1 failed attempt."
    (line,) = [one for one in time_line(made) if one.mark == "☎"]
    assert "at attempt 2, REFUSED: invalid routing key" in line.more


def test_what_was_not_seen_is_said() -> None:
    said = answers()
    said["reasons"].append(
        {"verdict": "no_data", "reason": "no_telemetry", "verdicts": 3, "first_ms": 1, "last_ms": 2, "said": "blind"}
    )
    text = " ".join(unseen(material(said)))
    for words in ("that reported no crash", "no_telemetry: 3 verdicts", "only its digest is known"):
        assert words in text
    assert "Devices that came back" not in text
    assert any("Devices that came back" in one for one in unseen(material(said | {"recovery_points": []})))


def test_recovery_is_told_from_the_first_device_that_is_back() -> None:
    said = answers()
    for row in said["recovery_points"][:3]:
        row["recovered"], row["looping"] = 7, 2
    said["recovery_points"][2]["recovered"] = 1
    made = material(said)
    told = [(one.what, one.more) for one in time_line(made) if one.mark == "↑"]
    assert told == [("devices come back", "1 device"), ("recovery at the end", "7 recovered, 2 looping, 0 silent")]
    assert "7 have recovered, 2 still crash, 0 are silent" in dict(summary(made))["Now"]
    assert "7 devices recovered, 2 looping, 0 silent" in dict(plots(made))["recovery"]


def test_what_a_hold_goes_by_is_drawn_where_the_record_has_it() -> None:
    """A record of a release before that number draws what a kill goes by alone."""
    said = answers()
    assert "what a hold goes by" not in dict(plots(material(said)))["evidence"]
    for row in said["verdict_points"]:
        row["may_hold"] = row["evidence"] + 1.5
    assert "what a hold goes by" in dict(plots(material(said)))["evidence"]


def test_tenants_that_come_back_are_named_where_reports_have_told_their_names() -> None:
    names = {one.name for one in material().reach if one.dimension == "tenant"}
    assert {one.tenant for one in material().recovery_parts} <= names


def test_more_than_is_shown_is_said() -> None:
    said = answers()
    said["pages"] = said["pages"] * 200
    assert "There are more deliveries to pagers than the 500 that are shown here." in unseen(material(said))


def test_the_policy_that_decided_is_shown_by_its_values() -> None:
    policy = load()
    said = [msgspec.structs.replace(one, policy=policy.default.digest) for one in switches()]
    made = material(answers() | {"decisions": signed(said, SIGNER)}, keys=KEYS, policies=[policy])
    assert made.policy == policy.default
    text = Read(page(made)).text
    assert "gate.alpha" in text or "alpha_kill" in text
    assert f"{policy.default.alpha_kill:g}" in text


def test_spans_are_in_the_unit_that_says_it_best() -> None:
    assert [span(ms) for ms in (0, 179_499, 180_000, 3_600_000, 7_200_000, 360_000_000)] == [
        "0 s", "179 s", "3 min", "60 min", "2 h 0 min", "4 d 4 h",
    ]  # fmt: skip
