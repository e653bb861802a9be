"""Nothing lost, nothing doubled: seeded histories of faults, and each subscriber has every event once, in order.

`CHAOS_RUNS` sets how many; `make chaos-signals` runs 1,000.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable

import pytest

from support.delivery_sim import World, inline, problems_of

RUNS = int(os.environ.get("CHAOS_RUNS", "200"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_subscriber_has_every_event_once_in_order_whatever_fails(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(asyncio, "to_thread", inline)
    seen: Counter[str] = Counter()

    async def run_all() -> list[str]:
        problems: list[str] = []
        for seed in range(RUNS):
            world = World(seed)
            await world.run()
            problems += problems_of(world)
            seen.update(runs=1, crashes=world.crashes, events=sum(world.said.values()))
        return problems

    problems = asyncio.run(run_all())
    for name, count in seen.items():
        record_property(name, count)
    print(", ".join(f"{count:,} {name}" for name, count in seen.items()))  # noqa: T201
    assert not problems, "\n".join(problems[:20])
    # The runs were what they say: faults happened and events were there to be lost.
    assert seen["crashes"] > 5 * RUNS
    assert seen["events"] > 20 * RUNS


def test_a_seed_is_one_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "to_thread", inline)

    async def run() -> object:
        world = World(7)
        await world.run()
        return world.done(), world.crashes, world.clock.now_ms()

    assert asyncio.run(run()) == asyncio.run(run())
