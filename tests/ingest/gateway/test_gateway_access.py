"""Who may do what, how often, and what a replay may do with the clock."""

import asyncio
import json
import stat
import timeit
from pathlib import Path

import pytest

from ingest.clock import DrivenClock, WallClock
from ingest.events import encoder
from ingest.gateway.pseudonym import PseudonymKeyError, Pseudonyms, load_key
from ingest.gateway.refusal import STATUS
from ingest.gateway.tenants import TokenBook, TokenBookError
from ingest.gateway.throttle import Throttle
from ingest.outcome import REFUSAL_DOCS, Refusal
from support.gateway_rig import KEY, NOW_MS, Rig, check_in, run

JSON = {"content-type": "application/json"}


def test_a_token_is_stored_as_a_hash_in_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "tokens.toml"
    token = TokenBook.load(path).add("acme-fleet", ["acme"], ["report"])
    assert token not in path.read_text()
    assert token.removeprefix("cordon_") not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    principal = TokenBook.load(path).authenticate(f"Bearer {token}")
    assert principal is not None
    assert (principal.name, principal.tenant) == ("acme-fleet", "acme")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer " + "x" * 9999, "ü"]
)
def test_an_unknown_header_authenticates_nobody(tmp_path: Path, header: str | None) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    book.add("a", ["acme"], ["report"])
    assert book.authenticate(header) is None


def test_authentication_of_a_known_header_is_cheap(tmp_path: Path) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    header = "Bearer " + book.add("a", ["acme"], ["report"])
    assert book.authenticate(header) is not None
    hashed = min(timeit.repeat(lambda: book._look_up(header), number=2000, repeat=5))
    cached = min(timeit.repeat(lambda: book.authenticate(header), number=2000, repeat=5))
    assert cached < hashed / 2


@pytest.mark.parametrize("lane", ["live", "replay-1"])
def test_a_running_gateway_hears_of_new_tokens_whatever_drives_its_clock(lane: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path, clock=WallClock() if lane == "live" else None, lane=lane)
    header = rig.token()["authorization"]

    async def scenario() -> None:
        async with rig.serving():
            added = "Bearer " + TokenBook.load(tmp_path / "tokens.toml").add("added", ["acme"], ["report"])
            assert rig.tokens.authenticate(header)
            for _ in range(1000):
                if rig.tokens.authenticate(added) is not None:
                    ticks = [tick for partition in range(2) for tick in rig.ticks("activity", partition)]
                    assert bool(ticks) == (lane == "live"), "a driven clock ticks when it is driven"
                    return
                await asyncio.sleep(0.01)
            pytest.fail("the gateway did not read its tokens again")

    run(scenario())


def test_tokens_are_read_again_when_the_file_changes_and_kept_when_it_breaks(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    book = TokenBook.load(path)
    first = "Bearer " + book.add("first", ["acme"], ["report"])
    second = "Bearer " + TokenBook.load(path).add("second", ["acme", "globex"], ["report", "rollout"])
    assert book.authenticate(first)
    assert book.authenticate(second) is None
    assert book.reload_if_changed()
    assert book.authenticate(second)
    assert not book.reload_if_changed()
    path.write_text("tokens = 5")
    with pytest.raises(TokenBookError):
        book.reload_if_changed()
    assert book.authenticate(first), "a broken file locks nobody out"
    path.write_text("")
    assert book.reload_if_changed()
    assert book.authenticate(first) is None, "revoked, cache and all"


@pytest.mark.parametrize(
    "text",
    [
        "[tokens.a]\nsha256='00'\ntenants=['x']\nroles=['report']",
        "[tokens.a]\ntenants=['x']\nroles=['report']",
        "x=1",
        "[",
    ],
)
def test_a_malformed_token_file_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(TokenBookError, match=r"tokens\.toml"):
        TokenBook.load(path)


@pytest.mark.parametrize(
    ("name", "tenants", "roles"),
    [
        ("a b", ["x"], ["report"]),
        ("a", [], ["report"]),
        ("a", ["x y"], ["report"]),
        ("a", ["x"], ["king"]),
        ("a", ["x"], []),
    ],
)
def test_a_typo_in_a_new_token_is_refused(tmp_path: Path, name: str, tenants: list[str], roles: list[str]) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    with pytest.raises(TokenBookError):
        book.add(name, tenants, roles)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    book = TokenBook.load(tmp_path / "tokens.toml")
    book.add("a", ["x"], ["report"])
    with pytest.raises(TokenBookError, match="exists"):
        TokenBook.load(tmp_path / "tokens.toml").add("a", ["x"], ["report"])


def test_roles_and_tokens_decide_what_is_answered(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def ask() -> None:
        report, rollout = rig.token("reporter"), rig.token("vendor", roles="rollout")
        body = encoder.encode(check_in())
        async with rig.serving() as client:
            for headers, path, content, status, reason in (
                ({}, "/v1/reports", body, 401, "unauthenticated"),
                ({"authorization": "Bearer nobody"}, "/v1/reports", body, 401, "unauthenticated"),
                (rollout, "/v1/reports", body, 403, "forbidden"),
                (report, "/v1/rollouts", b"{}", 403, "forbidden"),
                (report, "/v1/clock", b'{"at_ms":1721362200000}', 403, "forbidden"),
                (report, "/v1/nowhere", b"{}", 404, "not_found"),
            ):
                answer = await client.post(path, content=content, headers=JSON | headers)
                assert (answer.status_code, answer.json()["reason"]) == (status, reason), (path, answer.text)
            assert (await client.get("/v1/rollouts", headers=report)).status_code == 403
            assert (await client.get("/v1/reports", headers=report)).status_code == 405
            unauthenticated = await client.get("/v1/rollouts")
            assert unauthenticated.headers["www-authenticate"] == "Bearer"

    run(ask())
    assert rig.metrics.value("requests_refused_total", reason="unauthenticated") == 3


def test_every_refusal_has_a_status() -> None:
    assert set(STATUS) == set(Refusal)
    for reason, status in STATUS.items():
        assert REFUSAL_DOCS[reason].startswith(str(status))


def test_a_bucket_gives_its_rate_and_its_burst_and_no_more() -> None:
    clock = DrivenClock(NOW_MS)
    throttle = Throttle(clock, 100)
    assert throttle.take("a", 5000) == 1000
    assert throttle.empty("a")
    assert throttle.take("a", 1) == 0
    assert throttle.take("b", 1) == 1
    clock.drive_to(NOW_MS + 250)
    assert throttle.take("a", 5000) == 25
    clock.drive_to(NOW_MS + 10**9)
    assert throttle.take("a", 5000) == 1000


def test_a_tenant_over_its_rate_gets_429_and_a_time_to_come_back(tmp_path: Path) -> None:
    clock = DrivenClock(NOW_MS)
    rig = Rig(tmp_path, clock=clock, tenant_reports_per_second_max=10)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            body = encoder.encode([check_in(i) for i in range(130)])
            part = await client.post("/v1/reports", content=body, headers=headers)
            assert (part.status_code, part.json()["accepted"]) == (202, 100)
            assert {one["reason"] for one in part.json()["refused"]} == {"throttled"}
            assert [one["index"] for one in part.json()["refused"]] == list(range(100, 130))
            none = await client.post("/v1/reports", content=body, headers=headers)
            assert (none.status_code, none.json()["reason"]) == (429, "throttled")
            assert 1 <= int(none.headers["retry-after"]) <= 10
            clock.drive_to(NOW_MS + 2000)
            assert (await client.post("/v1/reports", content=body, headers=headers)).json()["accepted"] == 20

    run(post())
    assert rig.metrics.value("reports_total", outcome="throttled") == 140
    assert rig.metrics.value("requests_refused_total", reason="throttled") == 1


def test_a_pseudonym_depends_on_key_tenant_and_device() -> None:
    names = Pseudonyms(KEY)
    assert names.of("acme", "host-1") == names.of("acme", "host-1") == Pseudonyms(KEY).of("acme", "host-1")
    others = {
        names.of("globex", "host-1"),
        names.of("acme", "host-2"),
        names.of("acmeh", "ost-1"),
        Pseudonyms(KEY[::-1]).of("acme", "host-1"),
    }
    assert len(others | {names.of("acme", "host-1")}) == 5
    assert names.of("acme", "host-1") == "d00771f30a47ddc2", "an installation's pseudonyms must never change"


def test_the_key_is_made_once_for_its_owner_only_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    key = load_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == key
    path.write_bytes(b"short")
    with pytest.raises(PseudonymKeyError, match="backup"):
        load_key(path)


class Stages:
    """Says when it was asked to wait, and lets go when told."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.go = asyncio.Event()
        self.reached_ms = 0

    def killswitch_events(self) -> int:
        return 0

    async def reached(self, at_ms: int) -> None:
        self.asked.append(at_ms)
        await self.go.wait()


def test_a_driven_clock_flushes_ticks_and_waits_for_the_stages_behind(tmp_path: Path) -> None:
    async def drive() -> None:
        stages = Stages()
        rig = Rig(tmp_path, linger_ms=10_000, progress=stages)
        headers = JSON | rig.token(roles="report drive")
        async with rig.serving() as client:
            held = asyncio.create_task(client.post("/v1/reports", content=encoder.encode(check_in()), headers=headers))
            await asyncio.sleep(0.02)
            assert rig.ticks("activity", 0) == [], "a driven clock ticks only when driven"
            wanted = {"at_ms": NOW_MS + 1000, "wait_for_ms": NOW_MS + 500}
            driven = asyncio.create_task(client.post("/v1/clock", content=json.dumps(wanted), headers=headers))
            assert (await held).status_code == 202
            await asyncio.sleep(0.02)
            assert stages.asked == [NOW_MS + 500]
            assert not driven.done()
            assert rig.ticks("activity", 0) == rig.ticks("crashes", 3) == [NOW_MS + 1000]
            stages.go.set()
            assert (await driven).json()["at_ms"] == NOW_MS + 1000
            back = await client.post("/v1/clock", content=json.dumps({"at_ms": NOW_MS}), headers=headers)
            assert (back.status_code, back.json()["reason"]) == (409, "conflict")
            same = await client.post("/v1/clock", content=json.dumps({"at_ms": NOW_MS + 1000}), headers=headers)
            assert same.status_code == 200
            assert rig.ticks("activity", 0) == [NOW_MS + 1000]
            for bad in (b"{", b'{"at_ms":"now"}', b'{"at_ms":5}', b'{"at_ms":1721362200000,"wait":1}'):
                assert (await client.post("/v1/clock", content=bad, headers=headers)).status_code == 400

    run(drive())


def test_the_live_lane_cannot_be_driven(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lane="live")

    async def drive() -> None:
        headers = JSON | rig.token(roles="drive")
        async with rig.serving() as client:
            answer = await client.post("/v1/clock", content=json.dumps({"at_ms": NOW_MS + 1}), headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (403, "forbidden")

    run(drive())


def test_metrics_are_exposed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def ask() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            await client.post("/v1/reports", content=encoder.encode(check_in()), headers=headers)
            text = (await client.get("/metrics")).text
            assert 'cordon_reports_total{outcome="accepted"} 1.0' in text
            assert "cordon_post_seconds_count 1.0" in text

    run(ask())
