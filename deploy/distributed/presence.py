"""A gateway's presence: its word on `cordon.progress.v1` once a second, and its claim on its own name.

Ticks of two gateways of one name would be taken for one gateway's: the watermark would rise by the faster one, and
crashes be read ahead of the installs behind them. So a name has one living gateway. The invariant: of two that have the
same name, the later one does not start while the earlier one speaks, and where both started at once, one ends itself.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from deploy.serving.configuration import ConfigurationError
from ingest.clock import Clock
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Entry, Fence, FencedError, Log, LogError, TopicPartition
from ingest.progress import OwnerWord, progress_decoder
from ingest.topics import Topics

WORD_SECONDS = 1.0
# A gateway that was not heard for so long is gone; one that was killed may be started again at once in its own folder.
LIVES_SECONDS = 5.0
# Far more words than all owners say in a second.
LOOK_BACK_RECORDS = 5000
_INSTANCE = "gateway.id"

logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class GatewayPresence:
    """Speaks for one gateway, in a thread."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        name: str,
        data: Path,
        clock: Clock,
        agree: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Take the gateway's name; nothing is said before `start`.

        Args:
            log: Kafka's own, not the spool before it.
            topics: the lane's.
            name: setting `gateway_name`.
            data: its data folder, which tells it from another of the same name.
            clock: the wall clock, for words.
            agree: checks, before the name is claimed, that this process was told the same as the installation; raises
                ConfigurationError where it was not.
            on_failure: called from the thread when the gateway must end: told otherwise, or its name was taken.
        """
        self._log, self._source = log, TopicPartition(topics.name("progress"), 0)
        self._name, self._owner, self._clock = name, f"gateway/{name}", clock
        self._instance = _instance_of(data)
        self._agree, self._on_failure = agree, on_failure
        self._fence: Fence | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-presence", daemon=True)

    def claim(self) -> None:
        """Take the name, unless another living gateway has it; waits a few seconds to hear whether one lives.

        Raises:
            ConfigurationError: it does, or this process was told otherwise than the installation.
            LogUnavailableError: Kafka does not answer.
        """
        self._agree()
        other = self._other()
        if other is not None:
            raise ConfigurationError(
                f"another gateway by the name {self._name!r} is alive (instance {other}): two of one name forge the "
                f"order of reports. Set gateway_name to a name of its own for each gateway"
            )
        self._fence = self._log.claim(self._owner)

    def start(self) -> None:
        """Begin to speak."""
        self._thread.start()

    def stop(self) -> None:
        """Say that this gateway leaves, and end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _other(self) -> str | None:
        """Return the instance that speaks under this name and is not this one; None if none does."""
        first, position = self._log.bounds(self._source)
        last = self._last(max(first, position - LOOK_BACK_RECORDS), position)
        if last is None or last.leaving or last.worker == self._instance:
            return None
        # It spoke some time ago: whether it lives, only a word said from now on can tell.
        deadline = time.monotonic() + LIVES_SECONDS
        while (remaining := deadline - time.monotonic()) > 0 and not self._stop.is_set():
            self._log.wait({self._source: position}, min(remaining, WORD_SECONDS))
            end = self._log.bounds(self._source)[1]
            heard = self._last(position, end)
            position = end
            if heard is not None and heard.worker != self._instance:
                return None if heard.leaving else heard.worker
        return None

    def _last(self, position: int, end: int) -> OwnerWord | None:
        found = None
        while position < end and (records := self._log.read(self._source, position)):
            for record in records:
                if record.key == self._owner.encode() and record.value is not None:
                    try:
                        found = progress_decoder.decode(record.value)
                    except UNREADABLE_ERRORS as error:
                        logger.warning("a word of %s can't be read: %s", self._owner, error)
            position = records[-1].offset + 1
        return found

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._fence is None:
                    # Started on the spool, without Kafka: the name is taken as soon as it is back.
                    self.claim()
                assert self._fence is not None
                self._log.check(self._fence)
                self._say(leaving=False)
            except (FencedError, ConfigurationError) as error:
                self._on_failure(_taken(self._name) if isinstance(error, FencedError) else error)
                return
            except LogError as error:
                logger.debug("no word of this gateway: %s", error)
            self._stop.wait(WORD_SECONDS)
        try:
            if self._fence is not None:
                self._say(leaving=True)
        except LogError as error:
            logger.info("the last word of this gateway was not heard: %s", error)

    def _say(self, *, leaving: bool) -> None:
        assert self._fence is not None
        word = OwnerWord(
            owner=self._owner,
            worker=self._instance,
            generation=self._fence.epoch,
            at_ms=self._clock.now_ms(),
            leaving=leaving,
        )
        self._log.append([Entry(*self._source, self._owner.encode(), _encode(word))])


def _taken(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"another gateway has taken the name {name!r}: set gateway_name to a name of its own for each gateway"
    )


def _instance_of(data: Path) -> str:
    """Return what this data folder's gateway is called, for the folder's life."""
    path = data / _INSTANCE
    try:
        with path.open("x") as file:
            file.write(secrets.token_hex(8))
    except FileExistsError:
        pass
    return path.read_text().strip()
