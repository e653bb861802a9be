"""Alerts over HTTP: shown to whoever may read, and read by nothing that decides."""

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import detectors.stage
import signals.killswitch
from detectors.alerts.wire import ENDED_MAX, OPEN_MAX, Alert, AlertsStatus, AlertState
from detectors.policy import Policies
from detectors.stage import DetectionStage
from ingest.events import encoder
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.topics import Topics
from signals.delivery.alerts import AlertsView
from support.streams import READER, REPORTER, StreamRig, eventually, streaming

STATUS = AlertsStatus(at_ms=5, ready=True, hours=99, rows=500, open=1, tests=7, found=1, left_out=0, sentence="so.")


def alert(name: str, state: AlertState = AlertState.OPEN, last_ms: int = 1) -> Alert:
    return Alert(
        alert=name, at_ms=last_ms, state=state, pattern="bad.sys|0x50", opened_ms=0, last_ms=last_ms, crashes=9,
        devices_most=9, tenants_most=3, expected=0.1, log10_evidence=9.0, log10_needed=4.0, tests=7, false_share=0.05,
        sentence="nine.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        yield running


def test_alerts_are_shown_open_ones_first_with_the_watchs_status(rig: StreamRig) -> None:
    with rig.http(READER) as http:
        assert http.get("/v1/alerts").json() == {"alerts": [], "status": None}
        topic = rig.topics.name("alerts")
        rig.log.append(
            [
                Entry(topic, 0, b"a-1", encoder.encode(alert("a-1", AlertState.ENDED, 9))),
                Entry(topic, 0, b"a-2", encoder.encode(alert("a-2"))),
                Entry(topic, 0, b"state/0", b"\x81not json"),
                Entry(topic, 0, b"status", encoder.encode(STATUS)),
            ]
        )
        eventually(lambda: http.get("/v1/alerts").json()["status"] is not None)
        shown = http.get("/v1/alerts").json()
        assert [one["alert"] for one in shown["alerts"]] == ["a-2", "a-1"]
        assert shown["status"]["sentence"] == "so."
        assert http.get("/v1/alerts?limit=1").status_code == 400
    with rig.http(REPORTER) as http:
        assert http.get("/v1/alerts").status_code == 403


def test_a_deleted_alert_is_gone_and_what_cant_be_read_leaves_what_was_there() -> None:
    view, place = AlertsView(), TopicPartition("alerts", 0)
    said = encoder.encode(alert("a-1"))
    view.take(place, [Record(0, b"a-1", said, 0), Record(1, b"a-1", b'{"kind":"alert"}', 0)])
    assert [one.alert for one in view.now().alerts] == ["a-1"]
    view.take(place, [Record(2, b"a-1", None, 0), Record(3, None, said, 0), Record(4, b"other", said, 0)])
    assert view.now().alerts == []


def test_the_view_is_bounded() -> None:
    view, place = AlertsView(), TopicPartition("alerts", 0)
    for number in range(OPEN_MAX + ENDED_MAX + 5):
        name = f"a-{number}"
        view.take(place, [Record(number, name.encode(), encoder.encode(alert(name)), 0)])
    assert len(view.now().alerts) == OPEN_MAX + ENDED_MAX


def test_nothing_that_decides_on_a_rollout_reads_alerts() -> None:
    """Neither the kill switch nor the detectors' stage knows the topic, the types, or the view."""
    topics = Topics()
    stage = DetectionStage(topics, 0, Policies({}))
    assert topics.name("alerts") not in {source.topic for source in stage.inputs}
    folders = [Path(signals.killswitch.__path__[0]), Path(detectors.stage.__file__).parent]
    files = [path for folder in folders for path in folder.glob("*.py")]
    assert len(files) > 40
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not [name for name in names if "alerts" in name], path
        assert "alerts" not in words, path


def test_alerts_have_one_form_on_the_wire() -> None:
    assert msgspec.json.decode(encoder.encode(alert("a-1")))["kind"] == "alert"
