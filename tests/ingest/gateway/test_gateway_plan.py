"""Planning before the push: a declaration is answered with advice, which changes nothing."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from ingest.gateway.app import reports_app
from ingest.log.interface import TopicPartition
from ingest.planning import Advice, NoPlanner
from ingest.rollouts import Rollout, rollout_decoder, rollout_id
from support.gateway_rig import NOW_MS, Rig, run

JSON = {"content-type": "application/json"}
ID = rollout_id("crowdstrike", "content", "291")
DECLARATION: dict[str, Any] = {
    "vendor": "crowdstrike",
    "product": "content",
    "update_kind": "content",
    "version": "291",
    "rings": [{"name": "canary", "starts_at_ms": NOW_MS + 5000, "over_seconds": 600}, {"name": "broad"}],
    "ring_devices": {"canary": 600},
}


class Recorder:
    """Advises that nothing is known, and keeps what it was asked and where."""

    def __init__(self) -> None:
        self.asked: list[Rollout] = []
        self.threads: set[int] = set()

    def advise(self, rollout: Rollout) -> Advice:
        self.asked.append(rollout)
        self.threads.add(threading.get_ident())
        return NoPlanner().advise(rollout)


def asked(
    rig: Rig, *requests: tuple[str, str, Any], roles: str = "rollout", app: Starlette | None = None
) -> list[tuple[int, Any]]:
    async def ask() -> list[tuple[int, Any]]:
        headers = JSON | rig.token(f"{roles}-{id(requests)}", "acme", roles)
        await rig.gateway.start()
        transport = httpx2.ASGITransport(app=app or rig.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            answers = [
                await client.request(method, path, content=None if body is None else json.dumps(body), headers=headers)
                for method, path, body in requests
            ]
        await rig.gateway.drain()
        return [(answer.status_code, answer.json()) for answer in answers]

    return run(ask())


def declared(body: Any) -> tuple[str, str, Any]:
    return ("POST", "/v1/rollouts", body)


def test_a_declaration_is_answered_with_advice_on_the_rollout_as_recorded(tmp_path: Path) -> None:
    rig, planner = Rig(tmp_path), Recorder()
    app = reports_app(rig.gateway, planner)
    (created, first), (again, second), (status, plan) = asked(
        rig, declared(DECLARATION), declared(DECLARATION), ("GET", f"/v1/rollouts/{ID}/plan", None), app=app
    )
    assert (created, again, status) == (201, 200, 200)
    assert first == second
    assert first["ring_devices"] == {"canary": 600}
    assert [ring["ring"] for ring in first["advice"]["rings"]] == ["canary", "broad"]
    assert plan == first["advice"]
    assert [one.rollout for one in planner.asked] == [ID] * 3
    assert threading.get_ident() not in planner.threads, "advice is worked out beside the event loop"
    records = rig.log.read(TopicPartition(rig.topics.name("rollouts"), 0), 0)
    (kept,) = [rollout_decoder.decode(record.value or b"") for record in records]
    assert kept == planner.asked[0]


def test_sizes_told_later_are_kept_and_those_of_rings_no_longer_declared_are_dropped(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rings = DECLARATION["rings"]
    answers = asked(
        rig,
        declared(DECLARATION | {"ring_devices": {}}),
        declared(DECLARATION | {"rings": [], "ring_devices": {"canary": 700, "broad": 9000}}),
        declared(DECLARATION | {"rings": [], "ring_devices": {}}),
        declared(DECLARATION | {"rings": rings[:1], "ring_devices": {}}),
        declared(DECLARATION | {"rings": rings[:1], "ring_devices": {}}),
    )
    assert [status for status, _ in answers] == [201, 200, 200, 200, 200]
    assert [said["ring_devices"] for _, said in answers] == [
        {},
        {"canary": 700, "broad": 9000},
        {"canary": 700, "broad": 9000},
        {"canary": 700},
        {"canary": 700},
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ring_devices": {"canray": 600}}, "'canray'"),
        ({"ring_devices": {"canary": 0}}, "ring_devices"),
        ({"rings": [{"name": "canary"}, {"name": "canary"}]}, "declared twice"),
        ({"rings": [{"name": "canary", "share": 1.1}]}, "share"),
        ({"rings": [{"name": "canary", "share": 0}]}, "share"),
        ({"rings": [{"name": "canary", "over_seconds": -1}]}, "over_seconds"),
        ({"rings": [{"name": "canary", "speed": 3}]}, "speed"),
        ({"ring_sizes": {"canary": 3}}, "ring_sizes"),
    ],
)
def test_unknown_names_and_impossible_speeds_are_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    rig = Rig(tmp_path)
    ((status, said),) = asked(rig, declared(DECLARATION | changes))
    assert (status, said["reason"]) == (400, "bad_request")
    assert named in said["detail"]
    assert rig.gateway.book.get(ID) is None


def test_a_refused_change_leaves_what_was_declared(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    asked(rig, declared(DECLARATION), declared(DECLARATION | {"ring_devices": {"canray": 1}}))
    known = rig.gateway.book.get(ID)
    assert known is not None
    assert known.ring_devices == {"canary": 600}


def test_the_plan_of_an_unknown_rollout_is_not_found_and_devices_may_not_ask(tmp_path: Path) -> None:
    ((status, said),) = asked(Rig(tmp_path / "one"), ("GET", "/v1/rollouts/r-0000000000000000/plan", None))
    assert (status, said["reason"]) == (404, "not_found")
    ((status, said),) = asked(Rig(tmp_path / "two"), ("GET", f"/v1/rollouts/{ID}/plan", None), roles="report")
    assert (status, said["reason"]) == (403, "forbidden")
