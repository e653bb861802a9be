import json
import re
from collections.abc import Iterator

import httpx2
import msgspec
import pytest

from dashboards.console import plots
from dashboards.console.history import NO_STORE, MemoryRows, Table
from dashboards.console.plots import Drawing, Plot
from dashboards.console.session import COOKIE
from detectors.stacks import Stack
from detectors.verdict import DecisionWord
from ingest.log.interface import Entry
from ingest.sight import Cause, Sight, Unseen
from ingest.store.interface import StoreError
from signals.events import SwitchState
from support.console import ConsoleRig, console, form_in
from support.streams import APPROVER, OPERATOR, READER, REPORTER, VIEWER, eventually
from support.switches import ROLLOUT, START_MS, verdict

PAGES = ("/", "/rollouts", f"/rollouts/{ROLLOUT}", "/killswitch", "/pages", "/health")
EVIL = "<img src=x onerror=alert(1)>\"'\N{RIGHT-TO-LEFT OVERRIDE}</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def rig() -> Iterator[ConsoleRig]:
    with console(MemoryRows()) as found:
        found.say(verdict(DecisionWord.PROCEED))
        eventually(lambda: found.service.views.switch(ROLLOUT) is None and bool(found.service.views.newest(1)))
        yield found


@pytest.fixture(scope="module")
def operator(rig: ConsoleRig) -> Iterator[httpx2.Client]:
    with rig.browser() as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_signing_in_and_comes_back_to_it(rig: ConsoleRig, path: str) -> None:
    with rig.browser(None) as client:
        refused = client.get(path)
        assert refused.status_code == 303
        form = client.get(refused.headers["location"])
        posted = client.post(refused.headers["location"], data={"form": form_in(form.text), "token": OPERATOR})
        assert (posted.status_code, posted.headers["location"]) == (303, path)
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("token", [VIEWER, READER, APPROVER])
def test_readers_see_all_but_who_is_paged(rig: ConsoleRig, token: str) -> None:
    with rig.browser(token) as client:
        assert {path: client.get(path).status_code for path in PAGES} == {
            path: 403 if path == "/pages" else 200 for path in PAGES
        }


@pytest.mark.parametrize("token", [REPORTER, "nobody", ""])
def test_a_token_that_may_not_read_does_not_sign_in(rig: ConsoleRig, token: str) -> None:
    with rig.browser(None) as client:
        answer = client.post("/sign-in", data={"form": form_in(client.get("/sign-in").text), "token": token})
        assert answer.status_code == 401
        assert "not known" in answer.text
        assert client.get("/").status_code == 303


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil", "x", '/"onload="', "/a b"])
def test_signing_in_never_leads_to_another_site(rig: ConsoleRig, wanted: str) -> None:
    with rig.browser(None) as client:
        form = client.get("/sign-in", params={"next": wanted})
        answer = client.post("/sign-in", params={"next": wanted}, data={"form": form_in(form.text), "token": OPERATOR})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("path", [*PAGES, "/sign-in", "/rollouts/r-none", "/console/static/0/x.js"])
def test_every_answer_lets_nothing_run_but_our_own_files(operator: httpx2.Client, path: str) -> None:
    answer = operator.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert " style=" not in answer.text
    assert "<style" not in answer.text
    assert " onclick" not in answer.text


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(rig: ConsoleRig) -> None:
    with rig.browser(None) as client:
        plain = client.get("/sign-in").headers["set-cookie"].casefold()
        proxied = client.get("/sign-in", headers={"x-forwarded-proto": "https"}).headers["set-cookie"].casefold()
    assert "httponly" in plain
    assert "samesite=strict" in plain
    assert "secure" not in plain
    assert "secure" in proxied


def test_a_form_of_another_site_or_session_moves_nothing(rig: ConsoleRig, operator: httpx2.Client) -> None:
    path, end = f"/rollouts/{ROLLOUT}/hold", rig.log.bounds(rig.commands)
    own = form_in(operator.get(f"/rollouts/{ROLLOUT}").text)
    with rig.browser(VIEWER) as other:
        theirs = form_in(other.get("/").text)
    say = {"reason": "because"}
    refused = [
        operator.post(path, data=say),
        operator.post(path, data=say | {"form": ""}),
        operator.post(path, data=say | {"form": theirs}),
        operator.post(path, data=say | {"form": own}, headers={"origin": "https://evil.example"}),
        operator.post(path, data=say | {"form": own}, headers={"origin": "null"}),
        operator.post(path, data=say | {"form": own}, headers={"sec-fetch-site": "cross-site"}),
        operator.post(path, data=say | {"form": own}, headers={"sec-fetch-site": "same-site"}),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert operator.post("/sign-out", data={"form": theirs}).status_code == 403
    assert rig.log.bounds(rig.commands) == end


def test_roles_are_those_of_the_commands_over_http(rig: ConsoleRig) -> None:
    with rig.browser(VIEWER) as viewer:
        assert "Hold now" not in viewer.get(f"/rollouts/{ROLLOUT}").text
        secret = form_in(viewer.get("/").text)
        for action in ("hold", "kill", "release", "approve"):
            posted = viewer.post(f"/rollouts/{ROLLOUT}/{action}", data={"form": secret, "reason": "x", "sure": "yes"})
            assert posted.status_code == 403
    with rig.browser(APPROVER) as approver:
        assert rig.ask_for(approver, ROLLOUT, "hold").status_code == 403


@pytest.mark.parametrize(
    ("action", "fields", "why"),
    [
        ("hold", {"reason": " "}, "reason"),
        ("hold", {"reason": "x" * 1025}, "reason"),
        ("hold", {"minutes": "0"}, "minutes"),
        ("hold", {"minutes": "soon"}, "minutes"),
        ("hold", {"scope": "ring=none"}, "declares no rings"),
        ("hold", {"scope": "colour=red"}, "write ring=NAME"),
        ("kill", {}, "tick the box"),
        ("mute", {}, "nothing is asked for"),
    ],
)
def test_what_can_not_be_read_is_refused_with_what_to_write(
    rig: ConsoleRig, operator: httpx2.Client, action: str, fields: dict[str, str], why: str
) -> None:
    end = rig.log.bounds(rig.commands)
    answer = rig.ask_for(operator, ROLLOUT, action, **fields)
    assert answer.status_code in (400, 404)
    assert why in answer.text
    assert rig.log.bounds(rig.commands) == end


def test_hold_release_kill_and_approval_go_the_way_of_the_api() -> None:
    with console() as rig, rig.browser() as operator, rig.browser(APPROVER) as approver:
        rig.say(verdict(DecisionWord.PROCEED))
        eventually(lambda: bool(rig.service.views.newest(1)))
        held = rig.ask_for(operator, ROLLOUT, "hold", minutes="30")
        assert held.status_code == 303
        page = operator.get(held.headers["location"]).text
        assert "applied" in page
        assert "held" in page
        switch = rig.service.views.switch(ROLLOUT)
        assert switch is not None
        assert switch.state is SwitchState.HELD
        assert (switch.principal, switch.sentence.count("pager 4711"), switch.until_ms) == (
            "ops-1", 1, START_MS + 1_800_000,
        )  # fmt: skip
        assert rig.ask_for(operator, ROLLOUT, "release").status_code == 303
        assert rig.ask_for(operator, ROLLOUT, "kill", sure="yes").status_code == 303
        asked = rig.ask_for(operator, ROLLOUT, "release")
        assert "pending" in operator.get(asked.headers["location"]).text
        (waiting,) = rig.service.views.pending()
        assert waiting.command_id in approver.get(f"/rollouts/{ROLLOUT}").text
        approved = rig.ask_for(approver, ROLLOUT, "approve", command_id=waiting.command_id)
        assert "applied" in approver.get(approved.headers["location"]).text
        last = rig.service.views.switch(ROLLOUT)
        assert last is not None
        assert (last.state, last.approved_by) == (SwitchState.RELEASED, "lead-1")


def test_texts_of_others_are_shown_and_never_run() -> None:
    with console(MemoryRows({"signatures": [[EVIL, 3, 4, 1, 1_721_621_340]]})) as rig, rig.browser() as operator:
        said = verdict(DecisionWord.KILL)
        said = msgspec.structs.replace(said, vendor=EVIL, product=EVIL, version=EVIL, sentence=EVIL)
        said.evidence.signatures = [(EVIL, 3)]
        said.evidence.new_signatures = [(EVIL, 3, 0)]
        said.evidence.stacks = [Stack(signature=EVIL, frames=[EVIL], devices=2, exact=False)]
        said.evidence.loudest_margin = (EVIL, 2.0)
        said.evidence.attribution = EVIL
        rig.say(said)
        eventually(lambda: rig.service.views.switch(ROLLOUT) is not None)
        for path in (*PAGES, f"/console/table/signatures?rollout={ROLLOUT}", f"/rollouts?q={EVIL[:20]}"):
            text = operator.get(path).text
            assert "<img" not in text, path
            assert "alert(2)</script>" not in text, path
            assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;\N{REPLACEMENT CHARACTER}" in operator.get("/").text
        page = operator.get(f"/rollouts/{ROLLOUT}").text
        assert "most often at <bdi>&lt;img src=x" in page
        assert "(at least 2 of 3 devices)" in page
        shown = operator.get("/rollouts/%3Cscript%3E")
        assert shown.status_code == 404
        assert "<script>" not in shown.text


def test_an_event_that_no_known_key_signed_is_shown_as_not_believed() -> None:
    with console() as rig, rig.browser() as operator:
        rig.say(verdict(DecisionWord.KILL))
        eventually(lambda: rig.service.views.switch(ROLLOUT) is not None)
        record = rig.log.read(rig.killswitch, 0)[0]
        envelope = json.loads(record.value or b"")
        envelope["signatures"][0]["sig"] = "A" * 86 + "=="
        rig.log.append([Entry(*rig.killswitch, ROLLOUT.encode(), json.dumps(envelope).encode())])
        text = operator.get(f"/rollouts/{ROLLOUT}").text
        assert text.count("NOT BELIEVED") == 1
        assert text.count("verified") == 1


def test_blindness_is_the_first_thing_said() -> None:
    with console() as rig, rig.browser() as operator:
        assert "Cordon sees." in operator.get("/").text
        why = [Unseen(share="grouping/3", cause=Cause.SILENT, detail="worker-2 was last heard 90 s ago")]
        rig.sight_now = Sight(seeing=False, why=why, unseen=1, at_ms=START_MS)
        rig.clock.drive_to(START_MS + 5000)
        assert "CORDON IS BLIND" in operator.get("/").text
        health = operator.get("/health").text
        assert "grouping/3" in health
        assert "worker-2 was last heard 90 s ago" in health


def test_plots_come_from_the_store_and_say_so_where_there_is_none() -> None:
    rows = MemoryRows(
        {
            "crashed_by_ring": [[60, "canary", "5"]],
            "check_ins_by_ring": [
                [0, "canary", "100"],
                [60, "canary", "50"],
                [0, "broad", "900"],
                [60, "broad", "900"],
            ],
        }
    )
    with console(rows) as rig, rig.browser() as operator:
        plot = operator.get("/console/plot/crash_rate", params={"hours": "1"}).json()
        assert plot["x"] == [0.0, 60.0]
        assert {one["label"]: one["values"] for one in plot["series"]} == {"broad": [0, 0], "canary": [0, 100]}
        assert "canary 100" in plot["sentence"]
        rows.failure = StoreError("Code: 202. away\nwith a second line")
        why = operator.get("/console/plot/os_builds").json()["why"]
        assert "away" in why
        assert "second line" not in why
        assert operator.get("/console/plot/none").status_code == 404
        assert operator.get("/console/plot/crash_rate", params={"hours": "7"}).status_code == 400
    with console() as rig, rig.browser() as operator:
        assert operator.get("/console/plot/crash_rate").json() == {"why": NO_STORE}
        assert "keeps no store" in operator.get("/").text


def test_the_first_rollouts_are_listed_and_all_on_request_and_whatever_is_stopped_always() -> None:
    with console() as rig, rig.browser() as operator:
        rig.say(*(verdict(DecisionWord.PROCEED, rollout=f"r-{number:03}") for number in range(70)))
        eventually(lambda: len(rig.service.views.newest(100)) == 70)
        first = operator.get("/rollouts").text
        assert first.count("<tr data-row=") == 50
        assert "The first 50 of 7" in first
        everything = operator.get("/rollouts", params={"all": "yes"}).text
        assert {f"r-{number:03}" for number in range(70)} <= set(re.findall('<tr data-row="([^"]*)"', everything))
        found = operator.get("/rollouts", params={"q": "r-06"}).text
        assert found.count("<tr data-row=") == 10
        assert "10 shown" in found
        assert operator.get("/rollouts", params={"all": "please"}).status_code == 400
        rig.say(*(verdict(DecisionWord.KILL, rollout=f"r-{number:03}") for number in range(60)))
        eventually(lambda: len(rig.service.views.stopped(100)) == 60)
        assert operator.get("/rollouts").text.count("<tr data-row=") == 60


def test_a_plot_is_drawn_once_of_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Table] = []

    def draw(rows: Table) -> Plot:
        drawn.append(rows)
        return plots.check_ins(rows)

    monkeypatch.setitem(plots.FLEET_PLOTS, "check_ins", Drawing(("check_ins_by_ring",), draw))
    rows = MemoryRows({"check_ins_by_ring": [[0, "canary", "100"], [60, "canary", "50"]]})
    with console(rows) as rig, rig.browser() as operator, rig.browser(VIEWER) as viewer:
        first = operator.get("/console/plot/check_ins")
        for _ in range(5):
            assert viewer.get("/console/plot/check_ins").content == first.content
        assert len(drawn) == len(rows.asked) == 1
        assert operator.get("/console/plot/check_ins", params={"hours": "1"}).status_code == 200
        assert len(drawn) == 2


def test_the_api_answers_as_it_did_beside_the_console(rig: ConsoleRig, operator: httpx2.Client) -> None:
    with rig.http() as api:
        assert api.get("/v1/verdicts").status_code == 200
        assert api.get("/v1/nothing").json()["reason"] == "not_found"
    # The console's cookie opens no door of the API.
    assert operator.get("/v1/verdicts").status_code == 401
    assert operator.cookies[COOKIE]


def test_without_viewers_there_is_no_console() -> None:
    with console(viewers_max=0) as rig, rig.http() as client:
        assert client.get("/").json()["reason"] == "not_found"
