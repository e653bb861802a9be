"""`cordon up --distributed`: gateway, workers and signals as child processes of this one.

For one machine: to try the distributed way out, or to run it where one machine is enough. Invariants: children end in
the order in which reports flow, so what was taken goes through as far as it can; none outlives this process; one that
dies is started again, with growing pauses.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2

from deploy.distributed.child import Child, ChildPlan
from ingest.log.kafka import topics as kafka_topics
from ingest.log.kafka.admin import admin_client
from ingest.log.kafka.connection import connection_of
from ingest.log.specs import topic_specs
from ingest.settings import Settings
from ingest.store.server import migrator_of, store_of
from ingest.topics import Topics

READY_SECONDS_MAX = 120.0
# Until every share of the work is heard of; a large state takes longer to load, and is no reason not to take reports.
SEEING_SECONDS_MAX = 60.0
_ASK_SECONDS = 0.2

logger = logging.getLogger(__name__)


class SupervisionError(Exception):
    """A child could not be started; the message says which."""


def create_topics(settings: Settings, topics: Topics) -> int:
    """Create the lane's topics that are missing, and return how many; what else differs is left as it is.

    Raises:
        SettingsError: how Kafka is reached is set up wrongly.
        LogError: Kafka does not answer, or refuses.
    """
    connection = connection_of(settings)
    wanted = kafka_topics.wanted(topic_specs(topics), replication=connection.replication, min_isr=connection.min_isr)
    with admin_client(connection) as admin:
        existing = kafka_topics.describe(admin, (topic.name for topic in wanted))
        missing = [topic for topic in wanted if topic.name not in existing]
        if missing:
            kafka_topics.apply(admin, missing)
    return len(missing)


def migrate_store(settings: Settings) -> int:
    """Apply the store's missing migrations, before several workers could, and return how many.

    Raises:
        SettingsError: how ClickHouse is reached is set up wrongly.
        StoreError: it does not answer, or refuses.
    """
    store = store_of(settings)
    try:
        return len(migrator_of(settings, store).apply())
    finally:
        store.close()


def plans_of(settings: Settings, workers: int, roles: Sequence[str], config: Path | None) -> list[ChildPlan]:
    """Return what is run: a gateway, the workers, a signals process.

    Args:
        settings: of the whole; each child has them, but for its name and its health page's port.
        workers: how many workers.
        roles: of each worker.
        config: configuration file, if there is one.
    """
    configured = ["--config", str(config)] if config is not None else []
    own = {"CORDON_DATA_DIR": settings.data_dir, "CORDON_LANE": settings.lane, "CORDON_STORE": str(settings.store)}

    def health(number: int) -> str:
        return str(settings.worker_port + number if settings.worker_port else 0)

    plans = [ChildPlan("gateway", ["gateway", *configured], own)]
    for number in range(workers):
        name = f"worker-{number + 1}"
        named = own | {"CORDON_WORKER_NAME": name, "CORDON_WORKER_PORT": health(number)}
        plans.append(ChildPlan(name, ["worker", "--roles", ",".join(roles), *configured], named))
    named = own | {"CORDON_WORKER_NAME": "signals-1", "CORDON_WORKER_PORT": health(workers)}
    plans.append(ChildPlan("signals", ["signals", *configured], named))
    return plans


class Supervisor:
    """Runs the children; a process as `deploy.serving.run` drives it.

    Attributes:
        failed: set when a child has ended for good; everything should end.
    """

    def __init__(self, plans: Sequence[ChildPlan], verbose: bool = False) -> None:
        """Prepare the children, in the order in which they are started and ended."""
        self.failed = asyncio.Event()
        self._why = ""
        command = [sys.executable, "-m", "deploy.cli", *(["--verbose"] if verbose else [])]
        leashed = ["--leashed-to", str(os.getpid())]
        self.children = [
            Child(ChildPlan(one.name, [*one.arguments, *leashed], one.environment), command, os.environ, self._fail)
            for one in plans
        ]

    def urls(self) -> Mapping[str, str]:
        """Return the listeners of gateway and signals by name, and each health page by its process's."""
        found: dict[str, str] = {}
        for child in self.children:
            for name, url in child.urls.items():
                found[child.plan.name if name == "health" else name] = url
        return found

    async def start(self) -> None:
        """Start all children, and return once each has said that it is ready, and Cordon sees.

        Raises:
            SupervisionError: one ended instead, or took too long.
        """
        try:
            for child in self.children:
                child.start()
            await self._all_ready()
            await self._seeing()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the children in the order of the flow: gateway, workers together, signals."""
        for stage in ("gateway", "worker", "signals"):
            await asyncio.gather(*(child.stop() for child in self.children if child.plan.name.startswith(stage)))

    async def _all_ready(self) -> None:
        ready = asyncio.create_task(self._wait_ready())
        failed = asyncio.create_task(self._wait_failed())
        await asyncio.wait({ready, failed}, timeout=READY_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        if not ready.done():
            ready.cancel()
            late = [child.plan.name for child in self.children if not child.ready.is_set()]
            raise SupervisionError(
                self._why or f"{', '.join(late)} not ready within {READY_SECONDS_MAX:g} s: does Kafka answer?"
            )

    async def _seeing(self) -> None:
        """Wait until reports would go all the way: until the signals process hears of every share of the work."""
        url = next(child.urls["health"] for child in self.children if child.plan.name == "signals")
        why = "its health page does not answer"
        async with httpx2.AsyncClient(timeout=5.0, trust_env=False) as http:
            for _ in range(int(SEEING_SECONDS_MAX / _ASK_SECONDS)):
                try:
                    sight = (await http.get(f"{url}/readyz")).json()["sight"]
                    if sight["seeing"]:
                        return
                    why = f"{sight['why'][0]['share']}: {sight['why'][0]['detail']}"
                except (httpx2.HTTPError, ValueError) as error:
                    why = str(error)
                await asyncio.sleep(_ASK_SECONDS)
        logger.warning("reports are taken, but Cordon does not see yet: %s", why)

    async def _wait_ready(self) -> None:
        for child in self.children:
            await child.ready.wait()

    async def _wait_failed(self) -> None:
        await self.failed.wait()

    def _fail(self, why: str) -> None:
        self._why = self._why or why
        self.failed.set()
