"""Bad input against a running Cordon: each kind has its answer, moves its metric, and stops nothing.

One process takes it all, one case after another, so that damage done by one would show in the next.
"""

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest
import zstandard

from support.system import NDJSON, CordonProcess, cordon, eventually, running
from support.system_reports import DAY_MS, bsod, check_in, now_ms, update

Edit = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CordonProcess]:
    """Run a Cordon whose limits a test can reach cheaply."""
    with running(
        tmp_path_factory.mktemp("bad") / "data",
        linger_ms=5,
        body_bytes_max=1 << 20,
        body_inflated_bytes_max=2 << 20,
        reports_per_post_max=500,
        report_bytes_max=4096,
    ) as started:
        started.accept([check_in(device, {"contoso/sensor": "7.0"}) for device in range(50)])
        yield started


@pytest.fixture(autouse=True)
def still_takes_reports(process: CordonProcess) -> Iterator[None]:
    """Post a good check-in and a good crash after each case, whatever it did."""
    yield
    before = process.metric("reports_total", outcome="accepted")
    process.accept([check_in(1), bsod(2)])
    assert process.metric("reports_total", outcome="accepted") == before + 2
    assert process.http.get(f"{process.urls['reports']}/readyz").status_code == 200


class Whole(NamedTuple):
    """A body that is refused as a whole: the answer's status and reason."""

    body: bytes
    status: int
    reason: str
    headers: dict[str, str]


def whole(body: bytes, status: int, reason: str, **headers: str) -> Whole:
    return Whole(body, status, reason, headers)


GOOD = json.dumps([check_in(3)]).encode()
NESTED = b"[" * 100_000 + b"]" * 100_000
DEEP_FIELD = b'[{"kind":"check_in","x":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}]"
WHOLE = {
    "no body": whole(b"", 400, "bad_request"),
    "cut off": whole(GOOD[:-7], 400, "bad_request"),
    "not a number": whole(b'[{"kind":"check_in","seq":NaN}]', 400, "bad_request"),
    "bytes": whole(bytes(range(256)) * 8, 400, "invalid_json"),
    "binary array": whole(b"[\xff\xfe\x00]", 400, "bad_request"),
    "nested arrays": whole(NESTED, 400, "bad_request"),
    "nested in a field nobody knows": whole(DEEP_FIELD, 400, "bad_request"),
    "too many reports": whole(b"[" + b",".join([GOOD[1:-1]] * 501) + b"]", 413, "too_many_reports"),
    "a million commas": whole(b"[" + b"1," * 500_000 + b"1]", 413, "too_many_reports"),
    "too many lines": whole(b"{}\n" * 5000, 413, "too_many_reports", content_type=NDJSON),
    "gzip bomb": whole(gzip.compress(bytes(200 << 20)), 413, "body_too_large", content_encoding="gzip"),
    "zstd bomb": whole(zstandard.compress(bytes(512 << 20)), 413, "body_too_large", content_encoding="zstd"),
    "bomb in a bomb": whole(gzip.compress(gzip.compress(bytes(64 << 20))), 400, "too_large", content_encoding="gzip"),
    "many small members": whole(gzip.compress(b"") * 2000, 400, "bad_request", content_encoding="gzip"),
    "broken gzip": whole(gzip.compress(GOOD)[:-9], 400, "bad_request", content_encoding="gzip"),
    "no gzip at all": whole(GOOD, 400, "bad_request", content_encoding="gzip"),
    "zlib for gzip": whole(zlib.compress(GOOD), 400, "bad_request", content_encoding="gzip"),
    "unknown encoding": whole(GOOD, 415, "unsupported_encoding", content_encoding="br"),
    "unknown media type": whole(GOOD, 415, "unsupported_media_type", content_type="text/xml"),
    "unknown token": whole(GOOD, 401, "unauthenticated", authorization="Bearer cdn_nonsense"),
    "no token": whole(GOOD, 401, "unauthenticated", authorization=""),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_cannot_be_taken_apart_is_refused_whole(process: CordonProcess, case: str) -> None:
    """The answer has the status and one closed reason, and the reason's metric moves by one."""
    body, status, reason, headers = WHOLE[case]
    # A single text that is no JSON, or too long, is one bad report: counted with reports, not with requests.
    of_a_report = reason in ("invalid_json", "too_large")
    counted = ("reports_total", "outcome") if of_a_report else ("requests_refused_total", "reason")
    before = process.metric(counted[0], **{counted[1]: reason})
    answer = process.post_raw(body, **headers)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert (said["refused"][0]["reason"] if "refused" in said else said["reason"]) == reason
    assert len(answer.content) < 2000
    assert process.metric(counted[0], **{counted[1]: reason}) == before + 1


def test_a_body_too_large_is_refused_before_it_is_sent(process: CordonProcess) -> None:
    """A declared length beyond the limit is answered at once: a sender that waits for its answer saves the bytes."""
    before = process.metric("requests_refused_total", reason="body_too_large")
    place = urlsplit(process.urls["reports"])
    head = [
        "POST /v1/reports HTTP/1.1",
        f"host: {place.netloc}",
        f"authorization: Bearer {process.token('agents')}",
        "content-type: application/json",
        f"content-length: {2 << 20}",
    ]
    with socket.create_connection((place.hostname, place.port), timeout=10) as opened:
        opened.sendall("\r\n".join([*head, "", "["]).encode())
        answer = opened.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert process.metric("requests_refused_total", reason="body_too_large") == before + 1


def with_(**fields: Any) -> Edit:
    return lambda report: report | fields


def without(name: str) -> Edit:
    return lambda report: {key: value for key, value in report.items() if key != name}


def clock_ahead(report: dict[str, Any]) -> dict[str, Any]:
    return report | {"at_ms": now_ms() + 10 * 60_000}


def years_back(report: dict[str, Any]) -> dict[str, Any]:
    return report | {"at_ms": now_ms() - 1500 * DAY_MS, "boot_at_ms": now_ms() - 1501 * DAY_MS}


def booted_tomorrow(report: dict[str, Any]) -> dict[str, Any]:
    return report | {"boot_at_ms": now_ms() + DAY_MS}


ONE: dict[str, tuple[Edit, str]] = {
    "unknown kind": (with_(kind="bluescreen"), "unknown_kind"),
    "no kind": (without("kind"), "unknown_kind"),
    "kind of a log record": (with_(kind="tick"), "unknown_kind"),
    "kind is a number": (with_(kind=7), "unknown_kind"),
    "no device": (without("device"), "invalid_type"),
    "empty device": (with_(device=""), "invalid_type"),
    "device is a list": (with_(device=["host"]), "invalid_type"),
    "long device": (with_(device="d" * 129), "invalid_type"),
    "sequence is a text": (with_(seq="7"), "invalid_type"),
    "sequence is negative": (with_(seq=-1), "invalid_type"),
    "sequence is beyond 2^53": (with_(seq=2**64), "invalid_type"),
    "time is a text": (with_(at_ms="yesterday"), "invalid_type"),
    "time in seconds": (with_(at_ms=now_ms() // 1000), "invalid_type"),
    "time in microseconds": (with_(at_ms=now_ms() * 1000), "invalid_type"),
    "time is a fraction": (with_(at_ms=now_ms() + 0.5), "invalid_type"),
    "no such build": (with_(os_build="eleven"), "invalid_type"),
    "no such form": (with_(form_factor="toaster"), "invalid_type"),
    "a NUL": (with_(model="x\x00y"), "invalid_type"),
    "versions are a list": (with_(versions=["7.0"]), "invalid_type"),
    "too many versions": (with_(versions={f"v/{n}": "1" for n in range(65)}), "invalid_type"),
    "schema of the future": (with_(schema=99), "unsupported_schema"),
    "tenant of nobody": (without("tenant"), "wrong_tenant"),
    "clock ahead": (clock_ahead, "in_the_future"),
    "years back": (years_back, "too_old"),
    "booted tomorrow": (booted_tomorrow, "too_old"),
    "absurdly large": (with_(comment="x" * 5000), "too_large"),
}


@pytest.mark.parametrize("form", ["array", "lines"])
@pytest.mark.parametrize("case", ONE)
def test_a_bad_report_is_refused_alone(process: CordonProcess, case: str, form: str) -> None:
    """Between two good reports, the bad one alone is refused: by its index, with its reason, counted once."""
    edit, reason = ONE[case]
    reports = [check_in(10), edit(check_in(11)), bsod(12)]
    before = process.metric("reports_total", outcome=reason)
    if form == "array":
        answer = process.post(reports)
    else:
        answer = process.post_raw("\n".join(json.dumps(one) for one in reports).encode(), content_type=NDJSON)
    assert answer.status_code == 202, answer.text
    said = answer.json()
    assert said["accepted"] == 2
    assert [(one["index"], one["reason"]) for one in said["refused"]] == [(1, reason)]
    assert process.metric("reports_total", outcome=reason) == before + 1


def test_one_broken_line_spoils_no_other(process: CordonProcess) -> None:
    """In NDJSON a line that is no JSON is refused by itself."""
    lines = [json.dumps(check_in(10)), '{"kind": "check_in", ', json.dumps(check_in(11)), "nul", ""]
    answer = process.post_raw("\n".join(lines).encode(), content_type=NDJSON)
    assert answer.json()["accepted"] == 2
    assert [(one["index"], one["reason"]) for one in answer.json()["refused"]] == [
        (1, "invalid_json"),
        (3, "invalid_json"),
    ]


def test_a_token_speaks_for_its_tenants_only(process: CordonProcess) -> None:
    """A token of one tenant may leave the tenant out, and may not name another's."""
    made = cordon("token", "add", "acme-only", "--tenant", "acme", "--role", "report", "--data", process.data)
    assert made.returncode == 0, made.stderr
    headers = {"authorization": f"Bearer {made.stdout.strip()}"}
    unnamed = {key: value for key, value in check_in(20).items() if key != "tenant"}
    for _ in eventually(5, "the new token"):
        answer = process.post([unnamed | {"seq": unnamed["seq"]}, check_in(21, tenant="bravo")], **headers)
        if answer.status_code != 401:
            break
    assert answer.json()["accepted"] == 1
    assert [one["reason"] for one in answer.json()["refused"]] == ["wrong_tenant"]
    refused = process.http.get(f"{process.urls['reports']}/v1/rollouts", headers=headers)
    assert (refused.status_code, refused.json()["reason"]) == (403, "forbidden")


def grouped(process: CordonProcess) -> dict[str, float]:
    """Return grouping's outcomes once they have stopped moving."""
    last: dict[str, float] = {}
    for _ in eventually(10, "a standstill of grouping"):
        now = {key: value for key, value in process.metrics().items() if key.startswith("cordon_grouped_total")}
        if now == last:
            break
        last = now
        # Two ticks: what was posted before them has been grouped by then.
        ticks = process.metric("ticks_total")
        for _ in eventually(5, "two ticks"):
            if process.metric("ticks_total") >= ticks + 2 * 16:
                break
    return last


ACCEPTED = 'cordon_grouped_total{outcome="accepted"}'
DUPLICATE = 'cordon_grouped_total{outcome="duplicate"}'
TOO_LATE = 'cordon_grouped_total{outcome="too_late"}'


def test_duplicates_and_reordered_reports(process: CordonProcess) -> None:
    """What comes out of order counts once, and what comes again counts as a duplicate, however it is posted."""
    reports = [check_in(device) for device in (30, 31, 32) for _ in range(4)] + [bsod(33), bsod(34)]
    before = grouped(process)
    process.accept(list(reversed(reports)))
    process.accept(reports)
    process.accept(reports[:6] + reports[:6])
    after = grouped(process)
    assert after[ACCEPTED] - before[ACCEPTED] == len(reports)
    assert after.get(DUPLICATE, 0) - before.get(DUPLICATE, 0) == len(reports) + 12


def test_a_device_clock_that_jumps(process: CordonProcess) -> None:
    """A clock set back and forth is taken as it comes, moves no watermark, and later reports count all the same."""
    before = grouped(process)
    watermark = process.metric("watermark_ms", partition="0")
    process.accept([check_in(40)])
    process.accept([check_in(40, at_ms=now_ms() + 100_000)])
    process.accept([check_in(40, at_ms=now_ms() - 20 * DAY_MS, boot_at_ms=now_ms() - 25 * DAY_MS)])
    process.accept([bsod(40, at_ms=now_ms() - 20 * DAY_MS, boot_at_ms=now_ms() - 25 * DAY_MS)])
    process.accept([check_in(40)])
    after = grouped(process)
    assert after[ACCEPTED] - before[ACCEPTED] == 4
    assert after.get(TOO_LATE, 0) - before.get(TOO_LATE, 0) == 1
    for _ in eventually(5, "a watermark that goes on"):
        if process.metric("watermark_ms", partition="0") > watermark:
            break
    assert process.metric("watermark_ms", partition="0") <= now_ms()


def test_versions_without_end_reveal_a_bounded_number_of_rollouts(process: CordonProcess) -> None:
    """A tenant that invents versions spends its own budget; its reports are taken, the rest is counted."""
    before = process.metric("rollouts_refused_total")
    invented = [update("offered", 50, "invented", f"0.{number}", tenant="acme") for number in range(100)]
    process.accept(invented)
    found = [one for one in process.rollouts() if one["product"] == "invented"]
    assert len(found) <= 20
    assert process.metric("rollouts_refused_total") - before == 100 - len(found)


DECLARATION = {"vendor": "contoso", "product": "p", "update_kind": "driver", "version": "1"}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (NESTED, 400, "bad_request"),
        (json.dumps(DECLARATION | {"ringz": []}).encode(), 400, "bad_request"),
        (json.dumps(DECLARATION | {"update_kind": "firmware"}).encode(), 400, "bad_request"),
        (json.dumps(DECLARATION | {"rings": [{"name": "r", "share": 7}]}).encode(), 400, "bad_request"),
        (json.dumps(DECLARATION | {"version": "\x00"}).encode(), 400, "bad_request"),
    ],
)
def test_bad_declarations(process: CordonProcess, body: bytes, status: int, reason: str) -> None:
    """A declaration with a typo is refused: it would change what is compared."""
    before = process.metric("requests_refused_total", reason=reason)
    url = f"{process.urls['reports']}/v1/rollouts"
    answer = process.http.post(
        url, content=body, headers={"content-type": "application/json", **process.bearer("rollouts")}
    )
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert process.metric("requests_refused_total", reason=reason) == before + 1


def test_bad_paths_methods_and_commands(process: CordonProcess) -> None:
    """What is not served is said in the form of every other refusal, on both listeners."""
    urls, operator = process.urls, process.bearer("operator")
    http: httpx2.Client = process.http
    wrong = [
        (http.get(f"{urls['reports']}/v1/reports", headers=process.bearer("agents")), 405, "bad_request"),
        (http.get(f"{urls['reports']}/v2/reports"), 404, "not_found"),
        (http.get(f"{urls['reports']}/v1/rollouts?limit=0", headers=operator), 400, "bad_request"),
        (http.get(f"{urls['reports']}/v1/rollouts/r-none", headers=operator), 404, "not_found"),
        (http.post(f"{urls['reports']}/v1/clock", json={"at_ms": now_ms()}, headers=operator), 403, "forbidden"),
        (http.get(f"{urls['streams']}/v1/rollouts/r-none/verdict", headers=operator), 404, "not_found"),
        (http.get(f"{urls['streams']}/v1/rollouts/r-none/verdict"), 401, "unauthenticated"),
        (http.get(f"{urls['streams']}/v1/killswitch/stream?from=noon", headers=operator), 400, "bad_request"),
        (process.command("r-none", "kill", "no such rollout"), 404, "not_found"),
        (process.command("r-none", "explode", "no such action"), 404, "not_found"),
    ]
    assert [(answer.status_code, answer.json()["reason"]) for answer, _, _ in wrong] == [
        (status, reason) for _, status, reason in wrong
    ]
