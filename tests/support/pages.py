"""Pages and messages for the tests of channels and content: one of each kind, and hypothesis strategies for any."""

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from detectors.stacks import Stack
from signals.pagers.channels.interface import Message
from signals.pagers.content import body, headline, links
from signals.pagers.records import Page
from signals.pagers.words import Level, Role, Step

PAGE = Page(
    level=Level.CRITICAL,
    rollout="r-0123456789abcdef",
    vendor="crowdstrike",
    product="falcon-content",
    version="291",
    state="killed",
    decision="kill",
    reason="kill_evidence",
    number=3,
    decided_ms=1_721_362_200_000,
    ring="canary",
    exposed=180,
    crashes_exposed=11,
    crashes_control=1,
    at_risk_exposed=169,
    at_risk_control=84_000,
    tenants=4,
    rate_ratio=310.5,
    rate_low=44.1,
    rate_high=4100.0,
    first_crash_ms=1_721_362_170_000,
    signatures=[("csagent.sys|0x50", 10), ("ntfs.sys|0x24", 1)],
    stacks=[
        Stack(
            signature="csagent.sys|0x50",
            frames=["csagent.sys+0xe14ed", "csagent.sys+0xb5d9e", "csagent.sys+0xdee01"],
            devices=9,
            tenants=4,
        ),
        Stack(signature="ntfs.sys|0x24", frames=["ntfs.sys+0x1c2f0"], devices=1, tenants=1, exact=False),
    ],
)
BASE = "https://cordon.example.net/"


def message(step: Step = Step.TRIGGER, page: Page = PAGE, *, key: str = "cordon/r-1/crowdstrike/1") -> Message:
    """Return what a channel is given."""
    return Message(
        key=key,
        sequence=7,
        step=step,
        level=page.level,
        page=page,
        headline=headline(page, step),
        lines=body(page, step),
        links=links(page, BASE),
        opened_ms=1_721_362_200_400,
    )


# Names as declarations and reports carry them: 64 characters of anything.
_NAMES = st.text(min_size=1, max_size=64)
_COUNTS = st.integers(0, 10_000_000)
_RATES = st.none() | st.floats(0, 1e9)


def _words(kind: Any) -> Any:
    return st.sampled_from(list(kind))


PAGES = st.builds(
    Page,
    level=_words(Level),
    role=_words(Role),
    rollout=st.from_regex(r"r-[0-9a-f]{16}", fullmatch=True),
    vendor=_NAMES,
    product=_NAMES,
    version=_NAMES,
    state=st.sampled_from(["", "watching", "held", "killed", "released"]),
    decision=st.sampled_from(["", "hold", "kill", "proceed"]),
    reason=st.sampled_from(["", "person", "timer", "kill_evidence", "hold_evidence"]),
    number=_COUNTS,
    decided_ms=st.integers(0, 4_000_000_000_000),
    ring=_NAMES | st.just(""),
    exposed=_COUNTS,
    crashes_exposed=_COUNTS,
    crashes_control=_COUNTS,
    tenants=st.integers(0, 1000),
    rate_ratio=_RATES,
    rate_low=_RATES,
    rate_high=_RATES,
    first_crash_ms=st.integers(0, 4_000_000_000_000),
    signatures=st.lists(st.tuples(st.text(max_size=330), _COUNTS), max_size=5),
    signatures_more=_COUNTS,
    stacks=st.lists(
        st.builds(
            Stack,
            signature=st.text(max_size=330),
            frames=st.lists(st.text(max_size=80), max_size=3),
            devices=_COUNTS,
            tenants=st.integers(0, 32),
            exact=st.booleans(),
        ),
        max_size=5,
    ),
    module=_NAMES | st.just(""),
    drill=st.booleans(),
)
MESSAGES = st.builds(
    lambda page, step: message(step, replace(page, level=Level.NONE) if step is Step.RESOLVE else page),
    PAGES,
    _words(Step),
)
