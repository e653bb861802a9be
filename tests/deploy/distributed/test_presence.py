"""A gateway's name has one living gateway, whoever starts when."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.distributed import presence as module
from deploy.distributed.presence import GatewayPresence
from deploy.serving.configuration import ConfigurationError
from ingest.log.interface import LogUnavailableError
from ingest.progress import OwnerWord, progress_decoder
from support.words import WordLog


class Rig(WordLog):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.failures: list[BaseException] = []
        self.agreed = 0
        self.made: list[GatewayPresence] = []

    def presence(self, folder: str, name: str = "gateway-1") -> GatewayPresence:
        (self.folder / folder).mkdir(exist_ok=True)
        made = GatewayPresence(
            self.log, self.topics, name, self.folder / folder, self.clock, self._agree, self.failures.append
        )
        self.made.append(made)
        return made

    def _agree(self) -> None:
        self.agreed += 1

    def words(self) -> list[OwnerWord]:
        source = self.source("progress")
        return [progress_decoder.decode(record.value or b"") for record in self.log.read(source, 0)]


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(module, "WORD_SECONDS", 0.05)
    monkeypatch.setattr(module, "LIVES_SECONDS", 0.5)
    made = Rig(tmp_path)
    yield made
    for one in made.made:
        one.stop()


def test_a_gateway_speaks_and_says_goodbye(rig: Rig) -> None:
    presence = rig.presence("a")
    presence.claim()
    presence.start()
    eventually(lambda: len(rig.words()) > 2)
    presence.stop()
    words = rig.words()
    assert {word.owner for word in words} == {"gateway/gateway-1"}
    assert [word.leaving for word in words] == [False] * (len(words) - 1) + [True]
    assert rig.agreed == 1


def test_a_second_gateway_of_that_name_does_not_start_while_the_first_speaks(rig: Rig) -> None:
    first = rig.presence("a")
    first.claim()
    first.start()
    eventually(rig.words)
    with pytest.raises(ConfigurationError, match=r"is alive .* Set gateway_name"):
        rig.presence("b").claim()
    rig.presence("c", name="gateway-2").claim()
    assert not rig.failures


def test_a_name_is_free_once_its_gateway_left_or_fell_silent(rig: Rig) -> None:
    first = rig.presence("a")
    first.claim()
    first.start()
    eventually(rig.words)
    first.stop()
    rig.presence("b").claim()
    rig.say("gateway/gateway-1", worker="somebody who was killed")
    began = time.monotonic()
    rig.presence("c").claim()
    assert time.monotonic() - began > 0.4


def test_a_killed_gateway_starts_again_in_its_folder_at_once(rig: Rig) -> None:
    killed = rig.presence("a")
    killed.claim()
    rig.say("gateway/gateway-1", worker=(rig.folder / "a" / "gateway.id").read_text())
    began = time.monotonic()
    rig.presence("a").claim()
    assert time.monotonic() - began < 0.3


def test_of_two_that_started_at_once_one_ends(rig: Rig) -> None:
    first, second = rig.presence("a"), rig.presence("b")
    first.claim()
    second.claim()
    first.start()
    eventually(lambda: rig.failures)
    assert "has taken the name" in str(rig.failures[0])
    second.start()
    eventually(rig.words)
    assert len(rig.failures) == 1


def test_a_gateway_that_started_without_kafka_takes_its_name_when_it_is_back(rig: Rig) -> None:
    presence = rig.presence("a")
    rig.log.unavailable = True
    with pytest.raises(LogUnavailableError):
        presence.claim()
    presence.start()
    threading.Event().wait(0.2)
    rig.log.unavailable = False
    eventually(rig.words)
    assert rig.agreed >= 2
    assert not rig.failures
