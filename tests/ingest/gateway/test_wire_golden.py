"""Golden bytes of every wire type of `ingest`: what is written today must be read for ever.

Each file under tests/golden/v1 holds the exact bytes of one value. A change that alters them is a change of the wire
format: it needs a new schema number and a new folder, not an edit here. The exception is a field appended with a
default, which both sides of a rolling upgrade can do without: the bytes from before it stay in the folder `before`, and
both directions are tested.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.activity import activity_decoder, pack
from ingest.events import (
    SCHEMA,
    SCHEMA_WRITTEN,
    SCHEMAS_READ,
    Batch,
    BootLoop,
    Bsod,
    CheckIn,
    DiskVersion,
    Frame,
    Installed,
    Offered,
    Report,
    RolloutNotice,
    Tick,
    device_record_decoder,
    encoder,
    report_decoder,
)
from ingest.gateway.parse import ParseLimits, parse
from ingest.outcome import Outcome
from ingest.rollouts import Bound, Push, Ring, Rollout, RolloutDeclaration, rollout_decoder, rollout_id
from ingest.windows import (
    AtRisk,
    CohortWindow,
    FirstCrash,
    HeardMinute,
    MarginRisk,
    Recovering,
    Step,
    step_decoder,
)
from support.gateway_rig import ACME

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
AT_MS = 1_721_362_140_000
DEVICE = "84ffb1e6bf0d6d0a"
ROLLOUT = rollout_id("crowdstrike", "channel-file-291", "291.19")
RIVAL = rollout_id("crowdstrike", "falcon-sensor", "7.11")


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "device": DEVICE,
        "seq": 0,
        "at_ms": AT_MS,
        "boot_id": "b-0001",
        "boot_at_ms": AT_MS - 3_600_000,
        "os_build": "22631.3880",
        "form_factor": "laptop",
        "model": "Latitude 7440",
        "ring": "broad",
        "site": "berlin-3",
        "tenant": "acme",
    } | changes


UPDATE: dict[str, Any] = {
    "vendor": "crowdstrike",
    "product": "channel-file-291",
    "update_kind": "content",
    "version": "291.19",
}
DISK = [
    DiskVersion(vendor="crowdstrike", product="channel-file-291", version="291.19", activated_at_ms=AT_MS - 60_000),
    DiskVersion(vendor="crowdstrike", product="falcon-sensor", version="7.11"),
]
CRASH: dict[str, Any] = {
    "bugcheck": 0x50,
    "parameters": ["0xffff9c8e0000008c", "0x0", "0xfffff80537e014ed", "0x0"],
    "module": "csagent.sys",
    "frames": [Frame(module="csagent.sys", offset=0xE14ED), Frame(module="ntoskrnl.exe", offset=0x41E5F0)],
    "versions": DISK,
}
# Below 2**53, as the type demands: the epoch second times 2**20 is the reporter's rule for a fresh spool.
SEQ = 1_721_362_140 << 20

REPORTS: dict[str, Report] = {
    "offered": Offered(**fields(seq=SEQ), **UPDATE),
    "installed": Installed(**fields(seq=SEQ + 1), **UPDATE),
    "check_in": CheckIn(**fields(seq=SEQ + 2), versions={"crowdstrike/channel-file-291": "291.19"}),
    "bsod": Bsod(**fields(seq=SEQ + 3), **CRASH),
    "boot_loop": BootLoop(**fields(seq=SEQ + 4), **CRASH, boots=11),
}
RECORDS = {
    "batch": Batch(gateway="gateway-1", received_at_ms=AT_MS + 250, reports=list(REPORTS.values())),
    "tick": Tick(gateway="gateway-1", at_ms=AT_MS + 500),
    "rollout_notice": RolloutNotice(
        rollout=ROLLOUT,
        vendor="crowdstrike",
        product="channel-file-291",
        version="291.19",
        origin_ms=AT_MS,
        pushed=[DEVICE],
        pushed_from_ms=AT_MS + 1000,
        declared=True,
    ),
}
ACTIVITY = {
    "activity_batch": pack(
        [REPORTS["offered"], REPORTS["installed"], REPORTS["check_in"]],  # type: ignore[list-item]  # a dict of all kinds
        "gateway-1",
        AT_MS + 250,
    ),
}
ROLLOUTS = {
    "rollout": Rollout(
        rollout=ROLLOUT,
        **UPDATE,
        origin_ms=AT_MS,
        bound=Bound.DECLARED,
        rings=[Ring(name="canary", starts_at_ms=AT_MS, over_seconds=600.0, share=0.5), Ring(name="broad")],
        pushed_devices=2,
        pushed_lists=["0011223344556677"],
        declared_by="crowdstrike-cd",
        origin_said_ms=AT_MS - 1000,
        rings_said_ms=AT_MS - 1000,
        ring_devices={"canary": 600},
    ),
}
DECLARATIONS = {
    "rollout_declaration": RolloutDeclaration(
        **UPDATE,
        starts_at_ms=AT_MS,
        rings=[Ring(name="canary", starts_at_ms=AT_MS, over_seconds=600.0, share=0.5), Ring(name="broad")],
        pushed=[Push(tenant="acme", devices=["host-1", "host-2"], from_ms=AT_MS)],
        ring_devices={"canary": 600},
    ),
}
STEPS = {
    "step": Step(
        partition=3,
        generation=7,
        offsets={"activity": 1201, "crashes": 88},
        since_ms=AT_MS,
        watermark_ms=AT_MS + 250,
        crash_watermark_ms=AT_MS + 500,
        pending=2,
        windows=[
            CohortWindow(
                rollout=ROLLOUT,
                vendor="crowdstrike",
                product="channel-file-291",
                version="291.19",
                origin_ms=AT_MS,
                full=True,
                at_risk=[
                    AtRisk("22631|laptop|broad|day|recent", 4, 120, 7900),
                    AtRisk(f"22631|laptop|broad|day|recent|{RIVAL}", 4, 0, 100),
                ],
                crashes=[
                    FirstCrash(
                        AT_MS + 30, f"22631|laptop|broad|fresh|recent|{RIVAL}", 4, 1, 99, "csagent.sys!0x50", True,
                        "bsod", "22631.3880", "Latitude 7440", ["csagent.sys+0xe14ed", "csagent.sys+0xb5d9e"],
                    )
                ],
                heard=[HeardMinute(AT_MS, "22631|laptop|broad|day|recent", 4, 100, 7900, 0, 0)],
                crash_total=1,
                exposed_total=121,
                pending=1,
                margins=[
                    MarginRisk("build=22631.3880", 4, 120, 8000),
                    MarginRisk("model=Latitude 7440", 4, 100, 0),
                    MarginRisk("model=other", 4, 20, 8000),
                ],
                owners=[(4, 99), (7, 0)],
                recovery=[Recovering("broad", 99, 7, 1, 30), Recovering("broad", 0, 2, 0, 0)],
            )
        ],
    ),
}  # fmt: skip
DECODERS: dict[str, Any] = {
    **dict.fromkeys(REPORTS, report_decoder),
    **dict.fromkeys(RECORDS, device_record_decoder),
    **dict.fromkeys(ACTIVITY, activity_decoder),
    **dict.fromkeys(ROLLOUTS, rollout_decoder),
    **dict.fromkeys(DECLARATIONS, msgspec.json.Decoder(RolloutDeclaration)),
    **dict.fromkeys(STEPS, step_decoder),
}
VALUES: dict[str, Any] = {**REPORTS, **RECORDS, **ACTIVITY, **ROLLOUTS, **DECLARATIONS, **STEPS}


@pytest.mark.parametrize("name", VALUES)
def test_the_bytes_written_are_the_golden_ones(name: str) -> None:
    assert encoder.encode(VALUES[name]) == (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", VALUES)
def test_the_golden_bytes_are_read_as_the_value(name: str) -> None:
    assert DECODERS[name].decode((GOLDEN / f"{name}.json").read_bytes()) == VALUES[name]


def test_a_step_from_before_margins_and_rivals_is_read() -> None:
    """The release before wrote windows without margins, crashes without build and model, and whole cells."""
    cell = "22631|laptop|broad|fresh|recent"
    window = msgspec.structs.replace(
        STEPS["step"].windows[0],
        at_risk=[AtRisk("22631|laptop|broad|day|recent", 4, 120, 8000)],
        crashes=[FirstCrash(AT_MS + 30, cell, 4, 1, 99, "csagent.sys!0x50", True, "bsod")],
        margins=[],
        owners=[],
        recovery=[],
    )
    read = step_decoder.decode((GOLDEN / "before" / "step.json").read_bytes())
    assert read == msgspec.structs.replace(STEPS["step"], windows=[window])
    assert (read.windows[0].crashes[0].build, read.windows[0].crashes[0].model) == ("", "")


def test_a_step_from_before_frames_is_read() -> None:
    """The release before wrote crashes without frames: of those nothing is told."""
    (window,) = STEPS["step"].windows
    crash = msgspec.structs.replace(window.crashes[0], frames=[])
    read = step_decoder.decode((GOLDEN / "before_frames" / "step.json").read_bytes())
    assert read.windows == [msgspec.structs.replace(window, crashes=[crash])]


class _CrashBefore(msgspec.Struct, array_like=True):
    at_ms: int
    cell: str
    group: int
    exposed: int
    tenant: int
    signature: str
    scored: bool
    kind: str


class _WindowBefore(msgspec.Struct, kw_only=True):
    rollout: str
    full: bool = False
    at_risk: list[AtRisk] = []
    crashes: list[_CrashBefore] = []
    heard: list[HeardMinute] = []
    crash_total: int = 0


class _StepBefore(msgspec.Struct, kw_only=True):
    windows: list[_WindowBefore] = []


def test_a_notice_from_before_declared_was_told_is_of_an_undeclared_rollout() -> None:
    read = device_record_decoder.decode((GOLDEN / "before" / "rollout_notice.json").read_bytes())
    assert read == msgspec.structs.replace(RECORDS["rollout_notice"], declared=msgspec.UNSET)


def test_a_step_of_today_is_read_by_the_release_before() -> None:
    """Its types, without the appended fields, take from today's bytes what they know."""
    (read,) = msgspec.json.decode((GOLDEN / "step.json").read_bytes(), type=_StepBefore).windows
    (written,) = STEPS["step"].windows
    assert (read.full, read.at_risk, read.heard, read.crash_total) == (True, written.at_risk, written.heard, 1)
    assert [msgspec.structs.astuple(one) for one in read.crashes] == [
        msgspec.structs.astuple(one)[:8] for one in written.crashes
    ]


def test_every_golden_file_belongs_to_a_wire_type() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} >= set(VALUES)


@pytest.mark.parametrize("name", [name for name in VALUES if name not in DECLARATIONS])
def test_unknown_fields_are_ignored_by_readers(name: str) -> None:
    text = (GOLDEN / f"{name}.json").read_bytes()
    extended = text[:-1] + b',"from_the_next_version":{"a":[1,2]}}'
    assert DECODERS[name].decode(extended) == VALUES[name]


def test_unknown_fields_of_a_declaration_are_refused() -> None:
    text = (GOLDEN / "rollout_declaration.json").read_bytes()
    with pytest.raises(msgspec.ValidationError, match="ringz"):
        DECODERS["rollout_declaration"].decode(text[:-1] + b',"ringz":[]}')


def test_readers_take_the_schema_written_and_at_most_one_before_it() -> None:
    assert SCHEMA in SCHEMAS_READ
    assert SCHEMA_WRITTEN in SCHEMAS_READ
    assert {SCHEMA, SCHEMA - 1} >= SCHEMAS_READ
    assert min(SCHEMAS_READ) >= 1


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("schema", [*range(SCHEMA - 2, SCHEMA + 3)])
def test_the_gateway_takes_the_schemas_that_readers_take_and_no_other(name: str, schema: int) -> None:
    report = msgspec.structs.replace(REPORTS[name], schema=schema)
    parsed = parse(encoder.encode(report), False, ParseLimits(), AT_MS, ACME)
    if schema in SCHEMAS_READ:
        assert len(parsed.reports) == 1
    else:
        assert [item.reason for item in parsed.refused] == [Outcome.UNSUPPORTED_SCHEMA]


@pytest.mark.parametrize(("schema", "taken"), [(6, False), (7, True), (8, True), (9, False)])
def test_a_gateway_of_schema_8_takes_7_and_8(monkeypatch: pytest.MonkeyPatch, schema: int, taken: bool) -> None:
    """Schema 1 has none before it, so what an upgrade will do is shown with later numbers."""
    monkeypatch.setattr("ingest.gateway.parse.SCHEMAS_READ", frozenset({7, 8}))
    both = [msgspec.structs.replace(report, schema=schema) for report in REPORTS.values()]
    parsed = parse(encoder.encode(both), False, ParseLimits(), AT_MS, ACME)
    assert len(parsed.reports) == (len(both) if taken else 0)
    assert {item.reason for item in parsed.refused} == (set() if taken else {Outcome.UNSUPPORTED_SCHEMA})


def test_known_fields_are_checked_for_type_and_range() -> None:
    text = (GOLDEN / "bsod.json").read_bytes()
    for good, bad in (
        (b'"bugcheck":80', b'"bugcheck":-1'),
        (b'"bugcheck":80', b'"bugcheck":4294967296'),
        (b'"0x0"', b'"0X0"'),
        (b'"laptop"', b'"toaster"'),
        (b'"offset":922861', b'"offset":"922861"'),
    ):
        assert good in text
        with pytest.raises(msgspec.ValidationError):
            report_decoder.decode(text.replace(good, bad, 1))
