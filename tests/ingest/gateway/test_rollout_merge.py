"""Several gateways, one topic of rollouts: whatever is said where and in whichever order it is read, all end alike."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ingest.clock import DrivenClock
from ingest.events import Installed, Offered
from ingest.gateway.discovery import NOTICE_AGAIN_MS, RolloutBook, pushed_list
from ingest.gateway.merge import join, list_name, stronger
from ingest.gateway.records import Announcement
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Ring, Rollout, RolloutDeclaration, rollout_id
from support.gateway_rig import NOW_MS, common

UPDATE: dict[str, Any] = {"vendor": "v", "product": "p", "update_kind": "content", "version": "1"}
ID = rollout_id("v", "p", "1")
TIMES = st.integers(NOW_MS - 50, NOW_MS + 50)
LISTS = [list_name(f"{number:016x}", number + 1) for number in range(4)]

ROLLOUTS = st.builds(
    Rollout,
    rollout=st.just(ID),
    vendor=st.just("v"),
    product=st.just("p"),
    version=st.just("1"),
    update_kind=st.sampled_from(["content", "driver"]),
    origin_ms=TIMES,
    origin_said_ms=TIMES,
    bound=st.sampled_from(list(Bound)),
    rings=st.lists(st.builds(Ring, name=st.sampled_from(["a", "b"])), max_size=2),
    rings_said_ms=TIMES,
    ring_devices=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 3)),
    pushed_lists=st.lists(st.sampled_from(LISTS), unique=True).map(sorted),
    declared_by=st.sampled_from(["", "cd-1", "cd-2"]),
    discovered_by=st.sampled_from(["", "acme", "umbrella"]),
    closed=st.booleans(),
).map(
    lambda one: replace(
        one,
        pushed_devices=sum(int(name.partition(".")[2]) for name in one.pushed_lists),
        discovered_by="" if one.declared_by else one.discovered_by,
    )
)


@given(one=ROLLOUTS, two=ROLLOUTS, three=ROLLOUTS)
def test_the_join_minds_neither_order_nor_repetition_nor_grouping(one: Rollout, two: Rollout, three: Rollout) -> None:
    assert join(one, one) == one
    assert join(one, two) == join(two, one)
    assert join(join(one, two), three) == join(one, join(two, three))
    assert join(join(one, two), two) == join(one, two)


@given(one=ROLLOUTS, two=ROLLOUTS)
def test_the_join_keeps_what_both_knew(one: Rollout, two: Rollout) -> None:
    merged = join(one, two)
    assert merged.bound is stronger(one.bound, two.bound)
    assert set(merged.pushed_lists) == {*one.pushed_lists, *two.pushed_lists}
    assert merged.pushed_devices >= max(one.pushed_devices, two.pushed_devices)
    passed = [rollout.origin_ms for rollout in (one, two) if rollout.origin_ms <= rollout.origin_said_ms]
    if passed:
        assert merged.origin_ms == min(passed)
        assert merged.origin_ms <= merged.origin_said_ms, "it stays one that had passed"


@dataclass
class Node:
    """A gateway's book, what it has not written yet, and how far it has read the topic."""

    book: RolloutBook
    pending: list[Announcement] = field(default_factory=list)
    read: int = 0


class Fleet:
    """Gateways that write to and read from one list, which compaction may thin out."""

    def __init__(self, size: int) -> None:
        self.clock = DrivenClock(NOW_MS)
        self.topic: list[Rollout | None] = []
        self.nodes = [self.made() for _ in range(size)]

    def made(self) -> Node:
        return Node(RolloutBook(self.clock, Metrics(), 1000))

    def say(self, node: Node, what: str, size: int) -> None:
        version = str(size % 2)
        if what == "reveal":
            make = Offered if size % 3 else Installed
            at_ms = self.clock.now_ms() - size
            report = make(**common(1, tenant="acme", at_ms=at_ms, **(UPDATE | {"version": version})))
            node.pending += node.book.reveal([report])
        else:
            starts = self.clock.now_ms() + (size - 5) * 7
            rings = [Ring(name=f"ring-{size}", starts_at_ms=starts)] if size % 4 else []
            declared = RolloutDeclaration(**(UPDATE | {"version": version}), starts_at_ms=starts, rings=rings)
            pushed = [pushed_list([f"{size:016x}", f"{size + 1:016x}"], NOW_MS, 2)] if size % 5 == 0 else []
            announcement = node.book.declare(declared, f"cd-{size % 2}", pushed)[2]
            node.pending += [announcement] if announcement else []

    def write(self, node: Node) -> None:
        if node.pending:
            self.topic.append(node.pending.pop(0).rollout)

    def listen(self, node: Node) -> None:
        if node.read < len(self.topic):
            record = self.topic[node.read]
            node.read += 1
            announcement = node.book.merge(record) if record is not None else None
            node.pending += [announcement] if announcement else []

    def compact(self) -> None:
        latest = {record.rollout: place for place, record in enumerate(self.topic) if record is not None}
        self.topic = [
            record if record is not None and latest[record.rollout] == place else None
            for place, record in enumerate(self.topic)
        ]

    def settle(self) -> None:
        for _ in range(1000):
            if not any(node.pending or node.read < len(self.topic) for node in self.nodes):
                return
            for node in self.nodes:
                self.write(node)
                self.listen(node)
        raise AssertionError("the gateways never agree")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reveal", "declare", "write", "listen", "later", "compact", "join"]),
        st.integers(0, 2),
        st.integers(0, 10),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(steps=STEPS)
def test_any_interleaving_ends_with_one_word_that_all_know(steps: list[tuple[str, int, int]]) -> None:
    fleet = Fleet(3)
    bounds: dict[str, Bound] = {}
    for what, number, size in steps:
        node = fleet.nodes[number]
        if what in ("reveal", "declare"):
            fleet.say(node, what, size)
            for known in node.book.page("", 10):
                bounds[known.rollout] = stronger(known.bound, bounds.get(known.rollout, Bound.NONE))
        elif what == "write":
            fleet.write(node)
        elif what == "listen":
            fleet.listen(node)
        elif what == "later":
            fleet.clock.drive_to(fleet.clock.now_ms() + size * 10)
        elif what == "compact":
            fleet.compact()
        elif len(fleet.nodes) < 5:
            fleet.nodes.append(fleet.made())
    fleet.settle()
    latest = {record.rollout: record for record in fleet.topic if record is not None}
    for node in fleet.nodes:
        assert {known.rollout: known for known in node.book.page("", 10)} == latest
    assert {name: latest[name].bound for name in bounds} == bounds
    # From here on nothing moves an origin that has passed.
    fleet.clock.drive_to(fleet.clock.now_ms() + 1000)
    origins = {name: known.origin_ms for name, known in latest.items()}
    for size in range(11):
        for node in fleet.nodes:
            fleet.say(node, ("reveal", "declare")[size % 2], size)
    fleet.settle()
    for node in fleet.nodes:
        assert {known.rollout: known.origin_ms for known in node.book.page("", 10)}.items() >= origins.items()


def test_the_same_version_discovered_at_two_gateways_at_once_is_one_rollout() -> None:
    fleet = Fleet(2)
    first, second = fleet.nodes
    fleet.say(first, "reveal", 4)
    fleet.clock.drive_to(NOW_MS + 30)
    fleet.say(second, "reveal", 2)
    fleet.settle()
    (known,) = first.book.page("", 10)
    assert known == second.book.page("", 10)[0]
    assert (known.origin_ms, known.bound) == (NOW_MS - 4, Bound.OFFERED)


def test_a_rollout_heard_of_is_noticed_again_before_the_first_report_if_that_comes_soon() -> None:
    """The other gateway's notice may be on its way to a partition that this one's report reaches first."""
    for later_ms, expected in ((10, 1), (NOTICE_AGAIN_MS, 0)):
        fleet = Fleet(2)
        fleet.say(fleet.nodes[0], "reveal", 4)
        fleet.settle()
        fleet.clock.drive_to(NOW_MS + later_ms)
        fleet.say(fleet.nodes[1], "reveal", 4)
        assert [one.notify for one in fleet.nodes[1].pending] == [True] * expected
        fleet.say(fleet.nodes[1], "reveal", 4)
        assert len(fleet.nodes[1].pending) == expected, "once is enough"


def test_what_others_discover_counts_towards_the_tenants_budget() -> None:
    clock, metrics = DrivenClock(NOW_MS), Metrics()
    book = RolloutBook(clock, metrics, 2)
    for version in ("1", "2"):
        book.merge(
            Rollout(
                rollout=rollout_id("v", "p", version),
                **(UPDATE | {"version": version}),
                origin_ms=NOW_MS,
                bound=Bound.NONE,
                discovered_by="acme",
            )
        )
    report = Offered(**common(1, tenant="acme", **(UPDATE | {"version": "3"})))
    assert not book.reveal([report])
    assert metrics.value("rollouts_refused_total") == 1
