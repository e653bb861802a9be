"""`GET /v1/rollouts/{id}/recovery`: the latest verdict's counts, by ring and tenant as asked for."""

from collections.abc import Iterator

import pytest

from detectors.recovery import Recovery, RecoveryRow
from detectors.verdict import DecisionWord
from ingest.tenancy import tenant_hash
from support.streams import VIEWER, StreamRig, eventually, streaming
from support.switches import ROLLOUT, START_MS, verdict

PATH = f"/v1/rollouts/{ROLLOUT}/recovery"
ACME = f"#{tenant_hash('acme'):x}"


@pytest.fixture(scope="module")
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        with running.http(VIEWER) as http:
            # Declared, and not judged yet.
            assert http.get(PATH).json()["at_ms"] == 0
        said = verdict(DecisionWord.KILL)
        said.recovery = Recovery(silent=12, looping=3, recovered=40, rows=[
            RecoveryRow(ring="canary", tenant=ACME, silent=2, looping=3, recovered=40),
            RecoveryRow(ring="early", tenant="", silent=10),
        ])  # fmt: skip
        running.say(said)
        with running.http(VIEWER) as http:
            eventually(lambda: http.get(PATH).json()["at_ms"] == START_MS)
        yield running


def test_what_the_verdict_says_is_told(rig: StreamRig) -> None:
    with rig.http(VIEWER) as http:
        told = http.get(PATH).json()
    assert (told["silent"], told["looping"], told["recovered"], told["back"]) == (12, 3, 40, False)
    assert [(row["ring"], row["tenant"]) for row in told["rows"]] == [("canary", ACME), ("early", "")]


@pytest.mark.parametrize(("asked", "rings"), [
    ("ring=early", ["early"]), ("tenant=acme", ["canary"]), (f"tenant=%23{ACME[1:]}", ["canary"]),
    ("ring=early&tenant=acme", []), ("tenant=nobody", []),
])  # fmt: skip
def test_rows_are_those_of_the_ring_and_tenant_asked_for(rig: StreamRig, asked: str, rings: list[str]) -> None:
    with rig.http(VIEWER) as http:
        assert [row["ring"] for row in http.get(f"{PATH}?{asked}").json()["rows"]] == rings


def test_an_unknown_rollout_and_an_unknown_parameter_are_refused(rig: StreamRig) -> None:
    with rig.http(VIEWER) as http:
        assert http.get("/v1/rollouts/r-typo/recovery").status_code == 404
        assert http.get(f"{PATH}?rung=early").status_code == 400
