"""Which tenant group is one tenant's alone: told at once, alike after a restart, never in doubt told as sure."""

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingest.grouping.columns import Dictionaries
from ingest.grouping.owners import SEVERAL, Owners
from ingest.tenancy import tenant_group, tenant_hash

ROLLOUT = "r-0123456789abcdef"


def same_group() -> tuple[str, str]:
    """Return two tenants of one group."""
    found: dict[int, str] = {}
    for number in range(64):
        name = f"tenant-{number}"
        if tenant_group(name) in found:
            return found[tenant_group(name)], name
        found[tenant_group(name)] = name
    raise AssertionError("64 names, 32 groups")


def met(*names: str) -> tuple[Owners, Dictionaries]:
    words = Dictionaries()
    owners = Owners(words)
    owners.meet(np.array(list(words.tenants.numbers(names)), dtype=np.uint16))
    return owners, words


def test_a_group_is_its_only_tenants() -> None:
    owners, _ = met("acme", "acme")
    assert owners.news(ROLLOUT, full=True) == [(tenant_group("acme"), tenant_hash("acme"))]


def test_a_second_tenant_of_the_group_is_told_at_once_and_nothing_is_told_twice() -> None:
    first, second = same_group()
    owners, words = met(first)
    assert owners.news(ROLLOUT, full=False) == [(tenant_group(first), tenant_hash(first))]
    assert owners.news(ROLLOUT, full=False) == []
    owners.meet(np.array([words.tenants[second]], dtype=np.uint16))
    assert owners.news(ROLLOUT, full=False) == [(tenant_group(first), SEVERAL)]
    assert owners.news(ROLLOUT, full=False) == []
    assert owners.news(ROLLOUT, full=True) == [(tenant_group(first), SEVERAL)]


def test_devices_that_never_said_a_word_are_nobodys() -> None:
    owners, _ = met("")
    assert owners.news(ROLLOUT, full=True) == []


def test_where_tenants_have_no_number_any_more_their_group_is_in_doubt() -> None:
    owners, words = met("acme")
    list(words.tenants.numbers(f"t{number}" for number in range(66_000)))
    owners.meet(np.array([words.tenants["one too many"]], dtype=np.uint16))
    assert dict(owners.news(ROLLOUT, full=True))[tenant_group("")] == SEVERAL


@given(st.lists(st.lists(st.integers(0, 80), max_size=5), max_size=20))
def test_what_is_told_does_not_depend_on_how_rows_came(batches: list[list[int]]) -> None:
    words = Dictionaries()
    owners, at_once = Owners(words), Owners(words)
    everybody: list[int] = []
    for batch in batches:
        numbers = list(words.tenants.numbers(f"tenant-{one}" for one in batch))
        owners.meet(np.array(numbers, dtype=np.uint16))
        everybody += numbers
    at_once.meet(np.array(everybody, dtype=np.uint16))
    told = owners.news(ROLLOUT, full=True)
    assert told == at_once.news(ROLLOUT, full=True)
    groups = defaultdict(set)
    for name in {f"tenant-{one}" for batch in batches for one in batch}:
        groups[tenant_group(name)].add(tenant_hash(name))
    assert told == sorted((group, min(some) if len(some) == 1 else SEVERAL) for group, some in groups.items())
