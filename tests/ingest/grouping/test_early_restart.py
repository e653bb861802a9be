"""A restart before the first round of chunks is through: what was grouped until then is there afterwards."""

import pytest

from ingest.clock import DrivenClock
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.world import T0, World

SECOND = 1000


class Installation:
    """Grouping with the usual minute for a round of chunks, restarted without warning."""

    def __init__(self) -> None:
        self.topics = Topics(device_partitions=1)
        self.clock = DrivenClock(T0)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.world = World(self.topics)
        self.restart()

    def restart(self) -> None:
        settings = GroupingSettings(range(1), 100_000, silence_seconds=900, snapshot_seconds=60)
        self.stage = GroupingStage(self.topics, settings, Metrics())
        self.owner = Owner(
            self.log, "grouping", "grouping", self.stage, [TopicPartition(self.topics.name("fleet"), 0)], self.clock
        )
        self.owner.start()

    def hear(self, devices: range, at_ms: int) -> None:
        self.clock.drive_to(at_ms)
        some = [self.world.check_in(device, at_ms) for device in devices]
        self.log.append([*self.world.batches("activity", some, at_ms), *self.world.ticks(at_ms)])
        while self.owner.step(0):
            pass

    @property
    def devices(self) -> int:
        return self.stage.partitions[0].population.fleet.devices


def test_a_restart_in_the_first_minute_forgets_nobody() -> None:
    """No chunk was due yet, but the state says how far it had read: the devices must be in it."""
    run = Installation()
    run.hear(range(100), T0 + SECOND)
    run.hear(range(0), T0 + 3 * SECOND)
    run.restart()
    run.hear(range(0), T0 + 5 * SECOND)
    assert run.devices == 100


@pytest.mark.parametrize("restart_at", range(4, 70, 6))
def test_a_fleet_that_outgrows_its_chunks_forgets_nobody(restart_at: int) -> None:
    """Devices that open a new chunk right after an older one was written, or right before, are all there."""
    run = Installation()
    for second in range(1, restart_at):
        run.hear(range(120 * second, 120 * second + 120), T0 + second * SECOND)
    known = run.devices
    run.restart()
    run.hear(range(0), T0 + (restart_at + 1) * SECOND)
    assert run.devices == known == 120 * (restart_at - 1)
