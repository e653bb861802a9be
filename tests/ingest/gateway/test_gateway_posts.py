"""A post over HTTP: what is taken, what is refused and why, and what the log holds afterwards."""

import gzip
from pathlib import Path

import pytest
import zstandard

from ingest.events import Batch, encoder
from ingest.gateway.pseudonym import Pseudonyms
from ingest.outcome import Outcome, Refusal
from ingest.topics import partition_of
from support.gateway_rig import KEY, NOW_MS, PARTITIONS, Rig, bsod, check_in, common, installed, run

JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}


def lines(*items: bytes) -> bytes:
    return b"\n".join(items)


def test_one_object_is_accepted_and_durable_under_its_pseudonym(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            answer = await client.post("/v1/reports", content=encoder.encode(check_in(7)), headers=headers)
            assert answer.status_code == 202
            body = answer.json()
            assert (body["accepted"], body["refused"]) == (1, [])
            assert 270 <= body["next_check_in_s"] <= 330
            (report,) = rig.reports("activity")
            assert report.device == Pseudonyms(KEY).of("acme", "host-7")
            assert report.tenant == "acme"
            assert b"host-7" not in encoder.encode(rig.batches("activity"))

    run(post())
    assert rig.metrics.value("reports_total", outcome="accepted") == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["array", "ndjson"])
def test_batches_of_every_form_and_encoding_are_taken(tmp_path: Path, encoding: str, form: str) -> None:
    rig = Rig(tmp_path)
    reports = [bsod(i) if i % 3 == 0 else check_in(i) for i in range(30)]
    body = encoder.encode(reports) if form == "array" else lines(*map(encoder.encode, reports))
    if encoding != "identity":
        body = gzip.compress(body) if encoding == "gzip" else zstandard.compress(body)

    async def post() -> None:
        headers = (JSON if form == "array" else NDJSON) | rig.token() | {"content-encoding": encoding}
        async with rig.serving() as client:
            answer = await client.post("/v1/reports", content=body, headers=headers)
            assert answer.status_code == 202, answer.text
            assert answer.json()["accepted"] == 30

    run(post())
    assert len(rig.reports("crashes")) == 10
    assert len(rig.reports("activity")) == 20


def test_every_report_lies_in_the_partition_of_its_pseudonym(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            body = encoder.encode([check_in(i) for i in range(200)])
            assert (await client.post("/v1/reports", content=body, headers=headers)).status_code == 202

    run(post())
    for partition in range(PARTITIONS):
        for record in rig.records("activity", partition):
            if isinstance(record, Batch):
                assert {partition_of(report.device, PARTITIONS) for report in record.reports} == {partition}


BAD_ITEMS: list[tuple[str, bytes, Outcome]] = [
    ("broken JSON", encoder.encode(check_in())[:-9], Outcome.INVALID_JSON),
    ("a number for a name", encoder.encode(common() | {"kind": "check_in", "device": 5}), Outcome.INVALID_TYPE),
    ("no object", b"17", Outcome.INVALID_TYPE),
    ("a field missing", b'{"kind":"check_in","device":"a"}', Outcome.INVALID_TYPE),
    ("an unknown kind", encoder.encode(common() | {"kind": "panic"}), Outcome.UNKNOWN_KIND),
    ("no kind", encoder.encode(common()), Outcome.UNKNOWN_KIND),
    ("a schema to come", encoder.encode(check_in(schema=99)), Outcome.UNSUPPORTED_SCHEMA),
    ("a huge schema", encoder.encode(check_in())[:-1] + b',"schema":' + b"9" * 40 + b"}", Outcome.UNSUPPORTED_SCHEMA),
    ("another tenant", encoder.encode(check_in(tenant="globex")), Outcome.WRONG_TENANT),
    ("the future", encoder.encode(check_in(at_ms=NOW_MS + 120_001)), Outcome.IN_THE_FUTURE),
    ("years back", encoder.encode(check_in(at_ms=NOW_MS - 40 * 86_400_000)), Outcome.TOO_OLD),
    ("seconds for milliseconds", encoder.encode(check_in(at_ms=NOW_MS // 1000)), Outcome.INVALID_TYPE),
    ("a boot after the report", encoder.encode(check_in(boot_at_ms=NOW_MS + 60_000)), Outcome.TOO_OLD),
    ("an odd build", encoder.encode(check_in(os_build="eleven")), Outcome.INVALID_TYPE),
    ("an absurd size", encoder.encode(common() | {"kind": "check_in", "x": "y" * 70_000}), Outcome.TOO_LARGE),
    ("a long name", encoder.encode(check_in(device="d" * 129)), Outcome.INVALID_TYPE),
    ("a negative sequence", encoder.encode(check_in(-1)), Outcome.INVALID_TYPE),
    ("a huge number", encoder.encode(check_in(5)).replace(b'"seq":5', b'"seq":' + b"9" * 5000), Outcome.INVALID_TYPE),
    ("infinity", encoder.encode(check_in(5)).replace(b'"seq":5', b'"seq":1e999'), Outcome.INVALID_TYPE),
    ("NaN", encoder.encode(check_in(5)).replace(b'"seq":5', b'"seq":NaN'), Outcome.INVALID_JSON),
    ("bad UTF-8", encoder.encode(check_in()).replace(b"host-0", b"\xff\xfe"), Outcome.INVALID_JSON),
    ("a lone surrogate", encoder.encode(check_in()).replace(b"host-0", b"\\ud800"), Outcome.INVALID_JSON),
    ("a NUL escape", encoder.encode(check_in()).replace(b"host-0", b"h\\u0000st"), Outcome.INVALID_TYPE),
    ("a raw NUL", encoder.encode(check_in()).replace(b"host-0", b"h\x00st"), Outcome.INVALID_JSON),
    (
        "a nesting bomb",
        encoder.encode(check_in())[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        Outcome.INVALID_JSON,
    ),
]


@pytest.mark.parametrize(("what", "item", "outcome"), BAD_ITEMS, ids=[what for what, _, _ in BAD_ITEMS])
def test_a_bad_report_gets_its_outcome_and_the_good_ones_beside_it_are_taken(
    tmp_path: Path, what: str, item: bytes, outcome: Outcome
) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = NDJSON | rig.token()
        async with rig.serving() as client:
            body = lines(encoder.encode(check_in(1)), item, encoder.encode(bsod(2)))
            answer = await client.post("/v1/reports", content=body, headers=headers)
            assert answer.status_code == 202, answer.text
            said = answer.json()
            assert said["accepted"] == 2
            assert [(one["index"], one["reason"]) for one in said["refused"]] == [(1, outcome)]
            assert said["refused"][0]["detail"]
            alone = await client.post("/v1/reports", content=item, headers=headers)
            assert alone.status_code == 400
            assert alone.json()["accepted"] == 0
            assert [(one["index"], one["reason"]) for one in alone.json()["refused"]] == [(0, outcome)]

    run(post())
    assert rig.metrics.value("reports_total", outcome=outcome) == 2
    assert rig.metrics.value("reports_total", outcome="accepted") == 2
    assert len(rig.reports("activity")) == len(rig.reports("crashes")) == 1


def test_in_an_array_bad_reports_are_refused_one_by_one_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    array = (
        b"["
        + b",".join(
            [
                encoder.encode(check_in(1)),
                b"null",
                encoder.encode(check_in(2)).replace(b"host-2", b"\xff"),
                encoder.encode(check_in(3, at_ms=NOW_MS + 10**9)),
                encoder.encode(check_in(4)),
            ]
        )
        + b"]"
    )

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            answer = await client.post("/v1/reports", content=array, headers=headers)
            assert answer.json()["accepted"] == 2
            assert [(one["index"], one["reason"]) for one in answer.json()["refused"]] == [
                (1, "invalid_type"),
                (2, "invalid_json"),
                (3, "in_the_future"),
            ]

    run(post())


def test_duplicate_keys_take_the_last_value_and_unknown_fields_are_ignored(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    item = encoder.encode(check_in(5)).replace(b'"seq":5', b'"seq":5,"seq":6,"colour":"red"')

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            assert (await client.post("/v1/reports", content=item, headers=headers)).status_code == 202

    run(post())
    assert [report.seq for report in rig.reports("activity")] == [6]


def bomb(levels: int, compress: str) -> bytes:
    body = b"[" + b" " * (40 << 20)
    for _ in range(levels):
        body = gzip.compress(body) if compress == "gzip" else zstandard.compress(body)
    return body


BAD_BODIES: list[tuple[str, bytes, dict[str, str], int, Refusal]] = [
    ("empty", b"", {}, 400, Refusal.BAD_REQUEST),
    ("a broken array", b'[{"kind":', {}, 400, Refusal.BAD_REQUEST),
    ("an array nested without end", b"[" * 100_000, {}, 400, Refusal.BAD_REQUEST),
    ("a form", b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, Refusal.UNSUPPORTED_MEDIA_TYPE),
    ("UTF-16", b"[]", {"content-type": "application/json; charset=utf-16"}, 415, Refusal.UNSUPPORTED_MEDIA_TYPE),
    ("brotli", b"[]", {"content-encoding": "br"}, 415, Refusal.UNSUPPORTED_ENCODING),
    ("two encodings", b"[]", {"content-encoding": "gzip, gzip"}, 415, Refusal.UNSUPPORTED_ENCODING),
    ("broken gzip", b"\x1f\x8b nonsense", {"content-encoding": "gzip"}, 400, Refusal.BAD_REQUEST),
    ("cut gzip", gzip.compress(b"[" * 999)[:-9], {"content-encoding": "gzip"}, 400, Refusal.BAD_REQUEST),
    ("broken zstd", b"\x28\xb5\x2f\xfd nonsense", {"content-encoding": "zstd"}, 400, Refusal.BAD_REQUEST),
    ("cut zstd", zstandard.compress(b"ab" * 9999)[:-3], {"content-encoding": "zstd"}, 400, Refusal.BAD_REQUEST),
    ("a gzip bomb", bomb(1, "gzip"), {"content-encoding": "gzip"}, 413, Refusal.BODY_TOO_LARGE),
    ("a zstd bomb", bomb(1, "zstd"), {"content-encoding": "zstd"}, 413, Refusal.BODY_TOO_LARGE),
    ("a nested zstd bomb", bomb(2, "zstd"), {"content-encoding": "zstd"}, 400, Refusal.BAD_REQUEST),
    ("a large body", b" " * (4 << 20) + b"[]", {}, 413, Refusal.BODY_TOO_LARGE),
    ("too many reports", encoder.encode([check_in(i) for i in range(5001)]), {}, 413, Refusal.TOO_MANY_REPORTS),
    ("too many trifles", b"[" + b"0," * 1_500_000 + b"0]", {}, 413, Refusal.TOO_MANY_REPORTS),
]


@pytest.mark.parametrize(
    ("what", "body", "headers", "status", "reason"), BAD_BODIES, ids=[what for what, *_ in BAD_BODIES]
)
def test_a_bad_body_is_refused_as_a_whole(
    tmp_path: Path, what: str, body: bytes, headers: dict[str, str], status: int, reason: Refusal
) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        async with rig.serving() as client:
            answer = await client.post("/v1/reports", content=body, headers=JSON | rig.token() | headers)
            if what == "a nested zstd bomb":
                # Inflated once it is no JSON; it is one item that is none, not a body that cannot be read.
                assert (answer.status_code, answer.json()["refused"][0]["reason"]) == (400, "invalid_json")
                return
            assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
            assert answer.json()["detail"]
            assert rig.metrics.value("requests_refused_total", reason=reason) == 1

    run(post())
    assert not rig.reports("activity")


def test_members_and_frames_one_after_another_are_read_to_the_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    halves = [encoder.encode([check_in(i)]) for i in range(2)]
    text = [b"[" + halves[0][1:-1] + b",", halves[1][1:-1] + b"]"]

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            for encoding, compress in (("gzip", gzip.compress), ("zstd", zstandard.compress)):
                body = b"".join(map(compress, text))
                answer = await client.post(
                    "/v1/reports", content=body, headers=headers | {"content-encoding": encoding}
                )
                assert answer.json()["accepted"] == 2, answer.text

    run(post())


def test_a_body_that_grows_beyond_the_bound_is_refused_before_it_is_complete(tmp_path: Path) -> None:
    rig = Rig(tmp_path, body_bytes_max=2048)
    sent = 0

    async def post() -> None:
        nonlocal sent
        headers = JSON | rig.token()
        answers = []

        async def receive() -> dict[str, object]:
            nonlocal sent
            sent += 1
            assert sent < 10, "the gateway keeps reading"
            return {"type": "http.request", "body": b" " * 1024, "more_body": True}

        async def send(message: dict[str, object]) -> None:
            answers.append(message)

        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/v1/reports", "headers": raw}
        await rig.gateway.start()
        await rig.app(scope, receive, send)  # type: ignore[arg-type]  # plain dictionaries, as a server sends them
        assert answers[0]["status"] == 413
        await rig.gateway.drain()

    run(post())
    assert sent <= 4


def test_reports_of_a_clock_that_jumps_are_judged_each_by_its_own_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    times = [NOW_MS, NOW_MS + 86_400_000, NOW_MS - 1, NOW_MS - 400 * 86_400_000, NOW_MS + 1]
    body = encoder.encode([check_in(i, at_ms=at, boot_at_ms=at - 1) for i, at in enumerate(times)])

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            answer = await client.post("/v1/reports", content=body, headers=headers)
            reasons = {one["index"]: one["reason"] for one in answer.json()["refused"]}
            assert reasons == {1: "in_the_future", 3: "too_old"}

    run(post())


def test_duplicates_and_disorder_pass_the_gateway_in_the_order_they_came(tmp_path: Path) -> None:
    """Whether a report is a duplicate is grouping's to say: it has the sequence window."""
    rig = Rig(tmp_path)
    reports = [check_in(1, seq=seq) for seq in (5, 3, 5, 4)]

    async def post() -> None:
        headers = JSON | rig.token()
        async with rig.serving() as client:
            await client.post("/v1/reports", content=encoder.encode(reports), headers=headers)

    run(post())
    assert [report.seq for report in rig.reports("activity")] == [5, 3, 5, 4]


def test_a_collector_names_the_tenant_of_each_report(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def post() -> None:
        headers = JSON | rig.token("mssp", "acme globex")
        async with rig.serving() as client:
            named = [check_in(1, tenant="acme"), check_in(1, tenant="globex")]
            body = encoder.encode([*named, check_in(1), installed(2, tenant="evil")])
            answer = await client.post("/v1/reports", content=body, headers=headers)
            assert [(one["index"], one["reason"]) for one in answer.json()["refused"]] == [
                (2, "wrong_tenant"),
                (3, "wrong_tenant"),
            ]

    run(post())
    found = {report.tenant: report.device for report in rig.reports("activity")}
    assert set(found) == {"acme", "globex"}
    assert found["acme"] != found["globex"]
