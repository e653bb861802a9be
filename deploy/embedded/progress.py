"""How far the pipeline has come and whether it sees, for those that are made before it: gateway and kill switch."""

import asyncio

from deploy.embedded.pipeline import Pipeline
from ingest.gateway.refusal import RequestRefusedError
from ingest.log.interface import Log, TopicPartition
from ingest.outcome import Refusal
from ingest.sight import Sight
from ingest.topics import TOPICS, Topics

WAIT_SECONDS_MAX = 600.0
RETRY_AFTER_SECONDS = 10


class PipelineProgress:
    """Waits for the pipeline; the gateway's `Progress`."""

    def __init__(self, log: Log, topics: Topics) -> None:
        """Prepare; the pipeline is made after the gateway and attached then."""
        self._log = log
        self.pipeline: Pipeline | None = None
        topic = next(topic for topic in TOPICS if topic.word == "killswitch")
        name = topics.name("killswitch")
        self._sources = [TopicPartition(name, number) for number in range(topics.partitions(topic))]

    async def reached(self, at_ms: int) -> None:
        """Return once everything received before `at_ms` has been through to the kill switch.

        Raises:
            RequestRefusedError: the pipeline failed, or ten minutes were not enough.
        """
        pipeline = self.pipeline
        if pipeline is None or pipeline.reached_ms >= at_ms:
            return
        if not await asyncio.to_thread(pipeline.wait_reached, at_ms, WAIT_SECONDS_MAX):
            why = "has failed, see the log" if pipeline.failure is not None else "is too slow"
            detail = f"the pipeline {why}: it stands at {pipeline.reached_ms} ms and did not reach {at_ms} ms"
            raise RequestRefusedError(Refusal.DRAINING, detail, RETRY_AFTER_SECONDS)

    @property
    def reached_ms(self) -> int:
        """Everything received before this time has been through to the kill switch."""
        return 0 if self.pipeline is None else self.pipeline.reached_ms

    def sight(self) -> Sight:
        """Return whether the pipeline sees; before there is one, nothing is seen."""
        return Sight(seeing=False) if self.pipeline is None else self.pipeline.sight()

    def killswitch_events(self) -> int:
        """Return how many kill-switch events this lane's log holds."""
        return sum(self._log.bounds(source)[1] for source in self._sources)
