"""Dealing partitions to workers: balanced, both topics together, and nothing moves that can stay."""

from collections.abc import Mapping

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from deploy.workers.assignor import NOTHING, CoPartitionAssignor, Held, deal

NAMES = st.sampled_from([f"worker-{number}" for number in range(12)])
HELD = st.builds(Held, st.integers(0, 3), st.lists(st.integers(0, 80), max_size=30))
MEMBERS = st.dictionaries(NAMES, HELD, min_size=1)
PARTITIONS = st.integers(0, 64)


class FakeCluster:
    """Knows two topics."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.partitions)) if topic in ("activity", "crashes") else None


class Group:
    """Members of a group as aiokafka runs them: through bytes, the first one leads."""

    def __init__(self, partitions: int) -> None:
        self.cluster = FakeCluster(partitions)
        self.members: dict[str, CoPartitionAssignor] = {}
        self.has: dict[str, dict[str, list[int]]] = {}

    def rebalance(self) -> None:
        told = {}
        for name, assignor in self.members.items():
            sent = assignor.metadata({"activity", "crashes"}).encode()
            told[name] = ConsumerProtocolMemberMetadata.decode(sent)
        leader = self.members[min(self.members)]
        self.has = {}
        for name, assignment in leader.assign(self.cluster, told).items():
            received = ConsumerProtocolMemberAssignment.decode(assignment.encode())
            self.members[name].on_assignment(received)
            self.has[name] = dict(received.assignment)


def check_dealt(dealt: Mapping[str, list[int]], partitions: int) -> None:
    """Every partition is dealt once, and nobody has two more than another."""
    assert sorted(number for numbers in dealt.values() for number in numbers) == list(range(partitions))
    sizes = [len(numbers) for numbers in dealt.values()]
    assert max(sizes) - min(sizes) <= 1


@given(PARTITIONS, MEMBERS)
def test_all_is_dealt_once_and_evenly_whatever_members_claim(partitions: int, members: dict[str, Held]) -> None:
    dealt = deal(range(partitions), members)
    assert set(dealt) == set(members)
    check_dealt(dealt, partitions)


@given(PARTITIONS, MEMBERS, st.randoms())
def test_the_same_claims_are_dealt_the_same(partitions: int, members: dict[str, Held], random: object) -> None:
    shuffled = list(members.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert deal(range(partitions), dict(shuffled)) == deal(range(partitions), members)


@given(PARTITIONS, st.lists(st.tuples(NAMES, st.booleans()), min_size=1, max_size=12))
def test_no_more_moves_than_balance_asks_for(partitions: int, changes: list[tuple[str, bool]]) -> None:
    group = Group(partitions)
    for name, joins in changes:
        if joins or name not in group.members:
            group.members[name] = CoPartitionAssignor()
        else:
            del group.members[name]
            if not group.members:
                continue
        before = {member: set(numbers["activity"]) for member, numbers in group.has.items()}
        # A member that joins under its old name has begun anew.
        before = {member: numbers for member, numbers in before.items() if group_keeps(group, member, name)}
        group.rebalance()
        after = {member: numbers["activity"] for member, numbers in group.has.items()}
        check_dealt(after, partitions)
        assert all(numbers["activity"] == numbers["crashes"] for numbers in group.has.values())
        lost = sum(len(numbers - set(after[member])) for member, numbers in before.items())
        assert lost == fewest_losses(partitions, len(after), [len(numbers) for numbers in before.values()])


def group_keeps(group: Group, member: str, changed: str) -> bool:
    return member in group.members and member != changed


def fewest_losses(partitions: int, members: int, had: list[int]) -> int:
    """Return how many partitions members must lose at least: what they have above portions as large as can be."""
    least, larger = divmod(partitions, members)
    had = sorted(had, reverse=True)
    return sum(max(0, size - least - (place < larger)) for place, size in enumerate(had))


def test_who_was_away_does_not_take_back_what_was_dealt_meanwhile() -> None:
    dealt = deal(range(4), {"a-zombie": Held(5, [0, 1, 2, 3]), "b": Held(6, [2, 3])})
    assert dealt == {"a-zombie": [0, 1], "b": [2, 3]}
    dealt = deal(range(4), {"a-zombie": Held(5, [0, 1]), "b": Held(6, [0, 1]), "c": NOTHING})
    assert dealt["b"] == [0, 1]


def test_a_member_of_another_version_is_dealt_to_like_a_newcomer() -> None:
    told = {
        "new": CoPartitionAssignor().metadata(["activity", "crashes"]),
        "old": ConsumerProtocolMemberMetadata(0, ["activity", "crashes"], b"\xc1 other"),
    }
    dealt = CoPartitionAssignor().assign(FakeCluster(4), told)
    assert {name: dict(one.assignment)["crashes"] for name, one in dealt.items()} == {"new": [0, 1], "old": [2, 3]}
