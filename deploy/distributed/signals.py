"""The composition root of `cordon signals`: the kill switch, and the listener for verdicts, commands and streams.

Order of life: agree with the installation (topics, partition counts, the signing key), fill the views, join the group,
listen. Order of death: streams end first, then the shares flush and leave, then the listeners close.
"""

import asyncio
import logging
from collections.abc import Mapping

from deploy.distributed.base import base_of, check_facts, check_topics, until_kafka
from deploy.distributed.crew import Crew
from deploy.distributed.health import health_app
from deploy.distributed.lookout import Lookout
from deploy.serving.configuration import ConfigurationError
from deploy.serving.console import console_of
from deploy.serving.keys import reload_keys
from deploy.serving.pagers import pager_crew
from deploy.serving.servers import Listener
from deploy.serving.streams import stream_service
from deploy.serving.vendors import vendor_source
from deploy.serving.webhooks import webhook_service
from deploy.workers.signals import SignalsParts, signals_agents, signals_shares
from deploy.workers.words import ProgressWriter
from ingest.gateway.tenants import TokenBook, TokenBookError
from ingest.settings import Settings
from signals.delivery.app import streams_app
from signals.killswitch.keyring import KeyRing
from signals.killswitch.keys import KeyFiles
from signals.killswitch.leasing import Granting, terms_of
from signals.killswitch.signing import KeyFormatError

RELOAD_SECONDS = 1.0

logger = logging.getLogger(__name__)


class SignalsProcess:
    """The signals side on the running event loop.

    Attributes:
        failed: set when a part has failed for good; the process should end.
    """

    def __init__(self, settings: Settings) -> None:
        """Build all parts; nothing connects before `start`.

        Raises:
            ConfigurationError: settings, keys or data folder can't be used.
            TokenBookError: the token file can't be read.
        """
        self.failed = asyncio.Event()
        self._base = base = base_of(settings, "signals", settings.worker_name)
        try:
            self._ring = ring = KeyRing(KeyFiles(base.data), base.clock)
        except KeyFormatError as error:
            raise ConfigurationError(str(error)) from error
        self._facts = {"signing_key": ring.signer.key_id}
        self._tokens = TokenBook.load(base.data / "tokens.toml")
        self._words = ProgressWriter(base.log, base.topics, base.name, base.clock, base.metrics)
        self._lookout, terms = Lookout(base), terms_of(settings)
        parts = SignalsParts(
            log=base.log,
            topics=base.topics,
            settings=settings,
            signer=ring.signer,
            trusted=ring.trusted,
            key_changes=ring.take_changes,
            granting=Granting(terms, self._lookout) if terms is not None else None,
            words=self._words,
            clock=base.clock,
            metrics=base.metrics,
        )
        shares = signals_shares(parts)
        # Who numbers a partition's events posts them as well; between two that think so the fence decides.
        self._webhooks, webhook_key = webhook_service(
            settings, base.log, base.topics, base.clock, base.metrics, lambda: shares.owned
        )
        self._facts["webhook_key"] = webhook_key.fingerprint
        self._pagers = pager_crew(
            settings, base.log, base.topics, ring.trusted, base.clock, base.metrics, self._lookout, lambda: shares.owned
        )
        self._crew = Crew(
            [("signals", signals_agents(parts, base.connection, shares))],
            self._words,
            base.metrics,
            stall_seconds=settings.stall_seconds,
            on_failure=lambda _: self.failed.set(),
        )
        self._streams = stream_service(settings, base.log, base.topics, ring.trusted, base.metrics)
        console = console_of(
            settings, self._streams, self._tokens.authenticate, base.clock, webhook_key, self._lookout, None
        )
        app = streams_app(
            self._streams,
            self._tokens.authenticate,
            base.clock,
            self._lookout,
            terms,
            webhook_desk=self._webhooks.desk,
            more_routes=console,
            vendor_source=vendor_source(settings, base.metrics, None),
        )
        health = health_app(self._crew.problems, self._lookout, base.metrics)
        self._listeners = [
            Listener("streams", app, settings.host, settings.streams_port),
            Listener("worker", health, settings.host, settings.worker_port),
        ]
        self._reloading: asyncio.Task[None] | None = None

    def urls(self) -> Mapping[str, str]:
        """Return the URLs of the streams listener and the health page."""
        streams, health = self._listeners
        return {"streams": streams.url, "health": health.url}

    async def start(self) -> None:
        """Start every part, and return once both listeners answer; on failure nothing is left running.

        Raises:
            ConfigurationError: this process was told otherwise than the installation, or signs with another key.
            LogError: the views can't be filled.
            ListenError: a port can't be opened.
        """
        try:
            await until_kafka(lambda: check_topics(self._base), "its topics")
            await until_kafka(self._check_facts, "this installation")
            await self._streams.start()
            await asyncio.to_thread(self._webhooks.start)
            self._pagers.start()
            self._lookout.start()
            await self._crew.start()
            self._reloading = asyncio.create_task(self._reload())
            for listener in self._listeners:
                await listener.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the streams first: a stream is a request that never ends by itself."""
        self._streams.close_streams()
        if self._reloading is not None:
            self._reloading.cancel()
        await asyncio.to_thread(self._webhooks.stop)
        await asyncio.to_thread(self._pagers.stop)
        await self._crew.stop()
        await self._lookout.stop()
        for listener in self._listeners:
            await listener.stop()
        await self._streams.stop()
        await asyncio.to_thread(self._base.log.close)

    def _check_facts(self) -> None:
        # A key that was followed by another stays among the public ones: whoever knows both may go on with the newer.
        check_facts(self._base, self._facts, {"signing_key": self._ring.trusted.ids.__contains__})

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            reload_keys(self._ring)
            try:
                if self._tokens.reload_if_changed():
                    logger.info("tokens were read again")
            except TokenBookError as error:
                logger.error("the token file is broken, tokens stay as they were: %s", error)
