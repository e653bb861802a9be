"""The reports listener's OpenAPI document: every path is declared, nothing else, and answers look as it says."""

import json
from pathlib import Path
from typing import Any

from starlette.routing import Route

from ingest.gateway.operations import described
from support.gateway_rig import NOW_MS, Rig, common, run
from support.openapi import METHODS, check_answer

DECLARATION = {"vendor": "crowdstrike", "product": "content", "update_kind": "content", "version": "291"}


def test_every_served_path_is_declared_and_every_declared_one_is_served(tmp_path: Path) -> None:
    served = {
        (method, route.path)
        for route in Rig(tmp_path).app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    } | {("POST", "/v1/reports")}  # the one path that is reached before Starlette's routing
    declared = {(method.upper(), path) for path, item in described()["paths"].items() for method in METHODS & set(item)}
    assert served - declared == set(), "declare these in ingest/gateway/operations.py"
    assert declared - served == set(), "nothing serves these"


def test_a_running_listener_answers_as_the_document_says(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    reporter, rollouts = rig.token(), rig.token("rollouts", "*", "rollout")
    driver = rig.token("driver", "*", "drive")
    report = {"kind": "check_in", **common(1)}
    asked: list[tuple[str, str, str, dict[str, str], Any]] = [
        ("POST", "/v1/reports", "/v1/reports", reporter, [report, {**common(2), "kind": "check_in", "at_ms": 1}]),
        ("POST", "/v1/reports", "/v1/reports", reporter, {**report, "kind": "chek_in"}),
        ("POST", "/v1/reports", "/v1/reports", reporter, "no report"),
        ("POST", "/v1/reports", "/v1/reports", {}, report),
        ("POST", "/v1/reports", "/v1/reports", rollouts, report),
        ("POST", "/v1/rollouts", "/v1/rollouts", rollouts, DECLARATION),
        ("POST", "/v1/rollouts", "/v1/rollouts", rollouts, DECLARATION),
        ("POST", "/v1/rollouts", "/v1/rollouts", rollouts, {**DECLARATION, "rnigs": []}),
        ("GET", "/v1/rollouts?limit=1", "/v1/rollouts", rollouts, None),
        ("GET", "/v1/rollouts?limit=0", "/v1/rollouts", rollouts, None),
        ("GET", "/v1/rollouts/r-typo", "/v1/rollouts/{rollout}", rollouts, None),
        ("POST", "/v1/clock", "/v1/clock", driver, {"at_ms": NOW_MS + 1000}),
        ("POST", "/v1/clock", "/v1/clock", driver, {"at_ms": NOW_MS - 1000}),
        ("POST", "/v1/clock", "/v1/clock", reporter, {"at_ms": NOW_MS + 2000}),
        ("GET", "/healthz", "/healthz", {}, None),
        ("GET", "/readyz", "/readyz", {}, None),
        ("GET", "/metrics", "/metrics", {}, None),
        ("GET", "/v1/openapi.json", "/v1/openapi.json", {}, None),
    ]

    async def ask() -> set[tuple[str, int]]:
        seen = set()
        async with rig.serving() as http:
            for method, url, path, headers, body in asked:
                content = None if body is None else json.dumps(body).encode()
                headers = headers | ({} if body is None else {"content-type": "application/json"})
                answer = await http.request(method, url, content=content, headers=headers)
                check_answer(described(), method, path, answer)
                seen.add((path, answer.status_code))
            rollout = (await http.get("/v1/rollouts", headers=rollouts)).json()["rollouts"][0]["rollout"]
            answer = await http.get(f"/v1/rollouts/{rollout}", headers=rollouts)
            check_answer(described(), "GET", "/v1/rollouts/{rollout}", answer)
        return seen

    seen = run(ask())
    assert {("/v1/reports", 202), ("/v1/reports", 400), ("/v1/rollouts", 201), ("/v1/rollouts", 200)} <= seen
    assert {("/v1/clock", 200), ("/v1/clock", 409), ("/v1/clock", 403), ("/v1/reports", 401)} <= seen
