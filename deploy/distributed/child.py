"""One child process of the supervisor: started, read, restarted when it dies, ended.

The invariant: a child has one living process at most, in a session of its own, leashed to this process; a restarted one
listens where the one before it did.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

BACKOFF_SECONDS = 0.5
BACKOFF_SECONDS_MAX = 30.0
# A child that lived so long has earned a quick restart again.
STEADY_SECONDS = 60.0
STOP_SECONDS_MAX = 30.0
# What a process ends with that a restart won't help: a setting is wrong (EX_CONFIG).
CONFIGURATION_CODE = 78

# Which setting fixes the port of a listener that a child tells of.
_PORTS = {"reports": "CORDON_REPORTS_PORT", "streams": "CORDON_STREAMS_PORT", "health": "CORDON_WORKER_PORT"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What a child is.

    Attributes:
        name: of this child, for people.
        arguments: of the `cordon` command.
        environment: settings of its own, by environment name.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """Keeps one child process alive.

    Attributes:
        urls: listener name to URL, as the child has told.
        ready: set once it has said `ready` for the first time.
    """

    def __init__(
        self,
        plan: ChildPlan,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_failure: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare; `start` starts it.

        Args:
            plan: what it is.
            command: how the `cordon` command is called.
            environment: of all children.
            on_failure: called, with a sentence, when the child has ended and must not be started again.
            sleep: waits between restarts.
        """
        self.plan = plan
        self.urls: dict[str, str] = {}
        self.ready = asyncio.Event()
        self._command = [*command, *plan.arguments]
        self._environment = {**environment, **plan.environment}
        self._on_failure = on_failure
        self._sleep = sleep
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._living: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The living process, if there is one."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Begin to keep it alive."""
        self._living = asyncio.create_task(self._live(), name=f"child-{self.plan.name}")

    async def stop(self) -> None:
        """Ask it with SIGTERM to end, and kill it if it does not in time."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                logger.error("%s did not end within %g s and is killed", self.plan.name, STOP_SECONDS_MAX)
                process.kill()
                await process.wait()
        if self._living is not None:
            # It may be waiting to start the child again.
            self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = BACKOFF_SECONDS
        while not self._ending():
            began = loop.time()
            code = await self._run()
            if self._ending():
                return
            if code == CONFIGURATION_CODE or not self.ready.is_set():
                self._on_failure(f"{self.plan.name} ended with code {code}; what it said stands above")
                return
            if loop.time() - began >= STEADY_SECONDS:
                backoff = BACKOFF_SECONDS
            logger.warning("%s ended with code %s and is started again in %g s", self.plan.name, code, backoff)
            await self._sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)

    def _ending(self) -> bool:
        return self._stopping

    async def _run(self) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C at a terminal is for the supervisor, who ends its children in its own order.
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        async for line in process.stdout:
            self._hear(line.decode(errors="replace").split())
        return await process.wait()

    def _hear(self, words: Sequence[str]) -> None:
        if words == ["ready"]:
            self.ready.set()
        elif len(words) == 2 and words[1].startswith("http"):
            name, url = words
            self.urls[name] = url
            if name in _PORTS:
                self._environment[_PORTS[name]] = url.rpartition(":")[2]
