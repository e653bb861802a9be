"""A hundred thousand mutated reports at the parser: exactly one outcome each, and never an exception."""

import random
from collections import Counter

import msgspec
import pytest

from ingest.events import encoder, report_decoder
from ingest.gateway.parse import Parsed, ParseLimits, _evenly_spread, parse
from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Outcome
from support.gateway_rig import ACME, COLLECTOR, NOW_MS, bsod, check_in, installed, offered

LIMITS = ParseLimits()
BATCH = 250
BATCHES = 420
CHARACTERS = b'{}[]",:\\\x00\xff\xed\xa0\x80 0123456789eE+-.truefalsn\ntabc'
VALUES: list[object] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**53,
    2**64,
    10**30,
    1.5,
    -0.0,
    1e300,
    "",
    "x",
    "\x00",
    "\u2028",
    "😀" * 40,
    "y" * 200,
    [],
    [[]],
    {},
    {"a": {"b": []}},
    NOW_MS,
    NOW_MS // 1000,
    NOW_MS * 1000,
    NOW_MS + 10**8,
    "0x",
    "22631",
    ["0xffff"] * 9,
]


def mutate_bytes(chance: random.Random, text: bytes) -> bytes:
    """Change, drop, add or double a few bytes; a line break would make two items of one."""
    changed = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed)) if changed else 0
        what = chance.random()
        if what < 0.5 and changed:
            changed[at] = chance.choice(CHARACTERS)
        elif what < 0.7:
            del changed[at : at + chance.randint(1, 12)]
        elif what < 0.9:
            changed.insert(at, chance.choice(CHARACTERS))
        else:
            changed[at:at] = changed[at : at + chance.randint(1, 30)]
    return bytes(changed).replace(b"\n", b"").strip(b" \t\r") or b"?"


def mutate_field(chance: random.Random, text: bytes, names: list[bytes]) -> bytes:
    """Give one field a value of another kind or range, or a second value."""
    name = chance.choice(names)
    value = encoder.encode(chance.choice(VALUES))
    start = text.find(name)
    if start < 0 or chance.random() < 0.2:
        return text[:-1] + b"," + name + b":" + value + b"}"
    colon = start + len(name) + 1
    end = text.find(b',"', colon)
    return text[:colon] + value + (text[end:] if end > 0 else b"}")


def outcomes(parsed: Parsed, count: int) -> list[Outcome]:
    """Return each item's outcome, after checking that it has exactly one."""
    places = sorted([*parsed.indices, *(item.place for item in parsed.refused)])
    assert places == list(range(count))
    found = [Outcome.ACCEPTED] * count
    for place, reason, detail in parsed.refused:
        assert reason is not Outcome.ACCEPTED
        assert 0 < len(detail) < 400
        found[place] = reason
    return found


@pytest.mark.timeout(60)
def test_a_hundred_thousand_mutated_reports_have_one_outcome_each() -> None:
    chance = random.Random(20240719)
    valid = [
        encoder.encode(report)
        for report in (
            check_in(1, versions={"crowdstrike/content": "291"}),
            bsod(2, parameters=["0xffff"], model="Latitude 7440"),
            offered(3, ring="canary"),
            installed(4, site="berlin"),
        )
    ]
    names = [b'"%s"' % name.encode() for name in ("kind", "device", "seq", "at_ms", "boot_at_ms", "os_build", "schema")]
    names += [b'"%s"' % name.encode() for name in ("versions", "bugcheck", "frames", "tenant", "ring", "parameters")]
    seen: Counter[Outcome] = Counter()
    for number in range(BATCHES):
        items = []
        untouched = set()
        for place in range(BATCH):
            text = chance.choice(valid)
            if place % 25 == 7:
                untouched.add(place)
            elif chance.random() < 0.6:
                text = mutate_bytes(chance, text)
            else:
                text = mutate_field(chance, text, names)
            items.append(text)
        parsed = parse(b"\n".join(items), True, LIMITS, NOW_MS, ACME if number % 2 else COLLECTOR)
        found = outcomes(parsed, BATCH)
        seen.update(found)
        for place in untouched:
            assert found[place] is (Outcome.ACCEPTED if number % 2 else Outcome.WRONG_TENANT)
        for report in parsed.reports:
            assert report_decoder.decode(encoder.encode(report)) == report
    assert sum(seen.values()) == BATCH * BATCHES >= 100_000
    # The mutations must reach every outcome that one report can have here, or the test shows nothing.
    assert set(seen) >= set(Outcome) & {
        Outcome.ACCEPTED,
        Outcome.INVALID_JSON,
        Outcome.INVALID_TYPE,
        Outcome.UNKNOWN_KIND,
        Outcome.UNSUPPORTED_SCHEMA,
        Outcome.WRONG_TENANT,
        Outcome.IN_THE_FUTURE,
        Outcome.TOO_OLD,
    }


def test_arrays_of_mutated_items_are_sorted_alike_or_refused_as_a_whole() -> None:
    """An array whose text is broken is one refusal; otherwise its items fare as they would a line each."""
    chance = random.Random(291)
    valid = [encoder.encode(check_in(1)), encoder.encode(bsod(2)), encoder.encode(offered(3))]
    names = [b'"device"', b'"seq"', b'"at_ms"', b'"kind"', b'"schema"']
    whole = 0
    for _ in range(400):
        items = [mutate_field(chance, chance.choice(valid), names) for _ in range(20)]
        by_line = outcomes(parse(b"\n".join(items), True, LIMITS, NOW_MS, ACME), 20)
        try:
            by_array = outcomes(parse(b"[" + b",".join(items) + b"]", False, LIMITS, NOW_MS, ACME), 20)
        except RequestRefusedError:
            whole += 1
            assert Outcome.INVALID_JSON in by_line
            continue
        assert by_array == by_line
    assert whole < 400


def test_random_bytes_are_refused_and_never_raise_anything_else() -> None:
    chance = random.Random(41)
    statuses = set()
    for _ in range(3000):
        body = bytes(chance.choice(CHARACTERS) for _ in range(chance.randrange(60)))
        for ndjson in (False, True):
            try:
                parse(body, ndjson, LIMITS, NOW_MS, ACME)
            except RequestRefusedError as refusal:
                statuses.add(refusal.status)
    assert statuses == {400}


def spread_post(chance: random.Random) -> bytes:
    """Return an array in which some reports are near the largest size or past it, stuffed in ways that mislead."""
    items = []
    share = chance.choice([0, 0.03, 0.3])
    for number in range(chance.randint(1, 40)):
        text = encoder.encode(check_in(number))
        if chance.random() < share:
            size = chance.choice([300, 650, 900, 1000, 1010, 1300, 2500])
            name = chance.choice([b"z", b"form_factor", b"form_factor"])
            value = chance.choice([b'"%s"' % (b"y" * size), b'[%s"form_factor"]' % (b'"form_factor",' * (size // 14))])
            text = text[:-1] + b',"%s":%s}' % (name, value)
            if name == b"form_factor":  # the last one counts, so the stuffing has to be the first
                text = b'{"kind":"check_in","z":{"form_factor":%s},' % value + encoder.encode(check_in(number))[19:]
        items.append(chance.choice([b"", b" " * 700]) * (chance.random() < share) + text)
    return b"[" + b",".join(items) + b"]"


def test_reports_too_large_are_found_wherever_they_hide() -> None:
    """The short cut that proves a post free of them never does so of one that is not."""
    chance = random.Random(291)
    limits = ParseLimits(report_bytes_max=1024)
    seen: Counter[bool] = Counter()
    for _ in range(1500):
        body = spread_post(chance)
        sizes = [len(memoryview(item)) for item in msgspec.json.decode(body, type=list[msgspec.Raw])]
        parsed = parse(body, False, limits, NOW_MS, ACME)
        assert [item.place for item in parsed.refused] == [at for at, size in enumerate(sizes) if size > 1024]
        assert {item.reason for item in parsed.refused} <= {Outcome.TOO_LARGE}
        seen[_evenly_spread(body, len(sizes), 1024)] += 1
    assert min(seen[True], seen[False]) > 100
