"""The exact bytes of an alert and of the watch's status: a change that alters them is a change of the wire."""

from pathlib import Path

import msgspec
import pytest

from detectors.alerts.wire import Alert, AlertPlace, AlertsStatus, AlertState, alert_decoder
from ingest.events import encoder

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
VALUES: dict[str, msgspec.Struct] = {
    "alert": Alert(
        alert="a-7c8b2f86cee0", at_ms=1_721_386_800_000, state=AlertState.OPEN, pattern="contoso.sys|0x50",
        signatures=["contoso.sys|0x50", "contoso.sys|0x7e"], joined="1 name is like contoso.sys|0x50",
        places=[AlertPlace("22631.3880", "Latitude 5440", 29, 27, 0.02, 9.5, 4.7)], opened_ms=1_721_383_200_000,
        last_ms=1_721_386_800_000, crashes=29, devices_most=27, tenants_most=2, expected=0.02, log10_evidence=9.5,
        log10_needed=4.7, tests=140, false_share=0.05, times=1, ended="", sentence="contoso.sys|0x50: 29 crashes.",
    ),
    "alerts_status": AlertsStatus(
        at_ms=1_721_386_800_000, ready=True, hours=99, rows=353, open=1, tests=152, found=2, left_out=0,
        sentence="1 alert is open.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_the_bytes_are_those_that_others_read(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert encoder.encode(VALUES[name]) == golden
    assert alert_decoder.decode(golden) == VALUES[name]
