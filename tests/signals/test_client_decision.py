"""What the clients decide: by leases and stops, closed when anything fails, and on over a restart by the state on disk.

What is about the core runs over the core, what is about the stream over both clients.
"""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from detectors.scope import WHOLE
from detectors.verdict import DecisionWord
from ingest.clock import DrivenClock
from ingest.sight import Sight
from signals.client import AsyncKillSwitchClient, KillSwitchClient, PublicKeys, RefusedError, StateError, SwitchError
from signals.client.errors import UnknownRolloutError
from signals.client.subscription import Message, Subscription, Wish
from signals.events import Action
from signals.killswitch.effective import Effective, EffectiveReason
from signals.killswitch.lease import LeaseTerms
from signals.killswitch.leasing import Granting
from signals.killswitch.signing import UnknownKeyError
from signals.killswitch.verify import VerifiedEvent
from support.streams import READER, StreamRig, eventually
from support.switches import KEYS, ROLLOUT, SIGNER, START_MS, STRANGER, SwitchRig, command, verdict

TERMS = LeaseTerms(seconds=60.0, verdict_seconds=150.0, heard_share_least=0.2)
README = Path(__file__).parents[2] / "signals" / "README.md"


class Sees:
    """Always sees."""

    def sight(self) -> Sight:
        return Sight(seeing=True)


class LeaseLog(SwitchRig):
    """A log whose stage grants leases, with a subscription that is fed by hand."""

    granting = Granting(TERMS, Sees())

    def __init__(self) -> None:
        super().__init__()
        self.declare()
        self.monotonic = 0.0
        self.read = {"killswitch": 0, "leases": 0}

    def subscribe(self, *, keys: PublicKeys = KEYS, state: Path | None = None, lane: str = "live") -> Subscription:
        wish = Wish(url="http://127.0.0.1:9", rollout=ROLLOUT, lane=lane)
        return Subscription(wish, keys, state=state, clock=self.clock, monotonic=lambda: self.monotonic)

    def sent(self) -> list[httpx2.ServerSentEvent]:
        """Return what the listener would send since the last call."""
        found = []
        for word in ("killswitch", "leases"):
            for record in self.records(self.source(word))[self.read[word] :]:
                self.read[word] += 1
                place = f"0:{record.offset + 1}" if word == "killswitch" else ""
                found.append(frame(word.removesuffix("s"), record.value or b"", place))
        return found

    def move(self, *decisions: DecisionWord) -> list[httpx2.ServerSentEvent]:
        """Let the detector speak, and return what the listener would send of it."""
        for decision in decisions:
            self.later(1)
            self.say(verdict(decision, at_ms=self.clock.now_ms()))
            self.settle()
        return self.sent()

    def later(self, seconds: float) -> None:
        self.clock.drive_to(self.clock.now_ms() + int(seconds * 1000))
        self.monotonic += seconds


def frame(event: str, value: bytes, place: str) -> httpx2.ServerSentEvent:
    return httpx2.ServerSentEvent(event=event, data=value.decode(), id=place, retry=None)


def feed(subscription: Subscription, frames: list[httpx2.ServerSentEvent]) -> list[Message]:
    taken = []
    for sent in frames:
        if (message := subscription.take(sent)) is not None:
            taken.append(message)
            subscription.handled(message)
    return taken


def said(subscription: Subscription) -> Effective:
    return subscription.decision(ROLLOUT, WHOLE)


@pytest.fixture
def log() -> LeaseLog:
    return LeaseLog()


class TestCore:
    def test_without_a_word_an_unknown_rollout_is_an_error_and_a_known_one_on_hold(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        with pytest.raises(UnknownRolloutError, match="check the id"):
            said(subscription)
        assert subscription.answered(200, "")
        assert said(subscription).reason is EffectiveReason.NO_LEASE

    def test_proceed_ends_with_the_lease_to_the_millisecond(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        feed(subscription, log.move(DecisionWord.PROCEED))
        until_ms = said(subscription).until_ms
        log.later((until_ms - log.clock.now_ms() - 1) / 1000)
        assert said(subscription).proceed
        log.later(0.001)
        assert said(subscription).reason is EffectiveReason.LEASE_EXPIRED

    def test_a_clock_that_stands_still_does_not_prolong_a_lease(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        feed(subscription, log.move(DecisionWord.PROCEED))
        log.monotonic += 60
        assert said(subscription).reason is EffectiveReason.LEASE_EXPIRED

    def test_a_stop_wins_and_a_lease_from_before_it_counts_no_longer(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        first = log.move(DecisionWord.PROCEED)
        feed(subscription, first)
        feed(subscription, log.move(DecisionWord.HOLD))
        assert said(subscription).held
        assert feed(subscription, first) == []
        assert said(subscription).reason is EffectiveReason.HELD
        feed(subscription, log.move(DecisionWord.PROCEED))
        assert said(subscription).proceed

    def test_what_can_not_be_believed_keeps_everything_on_hold_until_the_stream_is_sound(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        feed(subscription, log.move(DecisionWord.PROCEED))
        place = subscription.last_event_id
        event, *rest = log.move(DecisionWord.HOLD, DecisionWord.PROCEED)
        forged = frame("killswitch", event.data.replace("eyJ", "eyK", 1).encode(), event.id)
        with pytest.raises(SwitchError):
            subscription.take(forged)
        assert (subscription.last_event_id, said(subscription).reason) == (place, EffectiveReason.NOT_BELIEVED)
        feed(subscription, [event, *rest])
        assert said(subscription).proceed

    def test_a_lease_does_not_end_the_doubt_that_an_event_began(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        feed(subscription, log.move(DecisionWord.PROCEED))
        with pytest.raises(SwitchError):
            subscription.take(frame("killswitch", b"{}", "0:1"))
        log.later(25)
        assert len(feed(subscription, log.move(DecisionWord.PROCEED))) == 1
        assert said(subscription).reason is EffectiveReason.NOT_BELIEVED
        feed(subscription, log.move(DecisionWord.HOLD, DecisionWord.PROCEED))
        assert said(subscription).proceed

    def test_a_kill_stays_a_kill_whatever_is_not_believed(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        feed(subscription, log.move(DecisionWord.KILL))
        with pytest.raises(SwitchError):
            subscription.take(frame("lease", b"{}", ""))
        assert said(subscription).killed

    def test_events_and_leases_that_come_twice_are_told_once(self, log: LeaseLog) -> None:
        subscription = log.subscribe()
        frames = log.move(DecisionWord.PROCEED, DecisionWord.HOLD, DecisionWord.PROCEED)
        events = [message for message in feed(subscription, frames + frames) if isinstance(message, VerifiedEvent)]
        assert [event.switch.number for event in events] == [1, 2]


def test_a_key_that_follows_is_found_in_the_key_file_and_no_strangers_is(log: LeaseLog, tmp_path: Path) -> None:
    key_file = tmp_path / "keys.json"
    key_file.write_bytes(PublicKeys([STRANGER.public]).to_json())
    wish = Wish(url="http://127.0.0.1:9", rollout=ROLLOUT)
    known = PublicKeys([STRANGER.public])
    subscription = Subscription(wish, known, key_file=key_file, clock=log.clock, monotonic=lambda: log.monotonic)
    frames = log.move(DecisionWord.PROCEED)
    with pytest.raises(UnknownKeyError):
        feed(subscription, frames)
    key_file.write_bytes(PublicKeys([SIGNER.public, STRANGER.public]).to_json())
    feed(subscription, frames)
    assert said(subscription).proceed
    key_file.unlink()
    stranger = Subscription(wish, PublicKeys([STRANGER.public]), key_file=key_file, clock=log.clock)
    with pytest.raises(UnknownKeyError, match="can't be read again"):
        feed(stranger, frames)


class TestState:
    def test_a_restart_goes_on_where_it_was(self, log: LeaseLog, tmp_path: Path) -> None:
        path = tmp_path / "state"
        before = log.subscribe(state=path)
        frames = log.move(DecisionWord.PROCEED, DecisionWord.HOLD)
        feed(before, frames)
        before.save()
        after = log.subscribe(state=path)
        assert after.last_event_id == before.last_event_id == "0:1"
        assert said(after).reason is EffectiveReason.HELD
        assert feed(after, frames) == []
        feed(after, log.move(DecisionWord.PROCEED))
        assert said(after).proceed

    def test_a_lease_on_disk_counts_until_its_end_and_no_longer(self, log: LeaseLog, tmp_path: Path) -> None:
        before = log.subscribe(state=tmp_path / "state")
        feed(before, log.move(DecisionWord.PROCEED))
        before.save()
        assert said(log.subscribe(state=tmp_path / "state")).proceed
        log.later(60)
        after = log.subscribe(state=tmp_path / "state")
        after.answered(200, "")
        assert said(after).held

    def test_an_event_is_written_once_it_is_handled_and_not_before(self, log: LeaseLog, tmp_path: Path) -> None:
        path = tmp_path / "state"
        subscription = log.subscribe(state=path)
        [event] = log.move(DecisionWord.HOLD)
        message = subscription.take(event)
        assert not path.exists()
        subscription.handled(message)
        assert log.subscribe(state=path).last_event_id == "0:1"

    def test_a_crash_between_taking_and_handling_brings_the_event_again(self, log: LeaseLog, tmp_path: Path) -> None:
        path = tmp_path / "state"
        subscription = log.subscribe(state=path)
        first, second = log.move(DecisionWord.HOLD), log.move(DecisionWord.KILL)
        feed(subscription, first)
        assert subscription.take(second[0]) is not None
        again = log.subscribe(state=path)
        assert again.last_event_id == "0:1"
        assert len(feed(again, second)) == 1

    @pytest.mark.parametrize(
        ("alter", "says"),
        [
            (lambda text: text.replace('"last_event_id":"0:1"', '"last_event_id":"0:9"'), "altered"),
            (lambda text: text.replace("eyJ", "eyK", 1), "altered"),
            (lambda text: text[:-20], "no state of a client"),
            (lambda _: "", "no state of a client"),
        ],
    )
    def test_an_altered_state_is_refused(self, log: LeaseLog, tmp_path: Path, alter: object, says: str) -> None:
        assert callable(alter)
        path = tmp_path / "state"
        feed(log.subscribe(state=path), log.move(DecisionWord.HOLD))
        path.write_text(alter(path.read_text()))
        with pytest.raises(StateError, match=says):
            log.subscribe(state=path)

    def test_a_state_of_other_keys_or_of_another_lane_is_refused(self, log: LeaseLog, tmp_path: Path) -> None:
        path = tmp_path / "state"
        feed(log.subscribe(state=path), log.move(DecisionWord.HOLD))
        with pytest.raises(StateError, match="not signed by the keys"):
            log.subscribe(state=path, keys=PublicKeys([STRANGER.public]))
        with pytest.raises(StateError, match="file of its own"):
            log.subscribe(state=path, lane="replay-1")

    def test_a_state_that_can_not_be_written_is_an_error_in_words(self, log: LeaseLog, tmp_path: Path) -> None:
        subscription = log.subscribe(state=tmp_path / "none" / "state")
        with pytest.raises(StateError, match="cannot write"):
            feed(subscription, log.move(DecisionWord.HOLD))


class LeaseStream(StreamRig):
    """A running listener whose stage grants leases."""

    granting = Granting(TERMS, Sees())

    def proceed(self) -> None:
        """Give a verdict that brings a lease; leases are looked at by the clock, which stands still otherwise."""
        self.say(verdict(DecisionWord.PROCEED))
        eventually(lambda: self.owner.flushed.get(self.verdicts) == 1)
        self.clock.drive_to(self.clock.now_ms() + 1000)


@pytest.fixture
def rig() -> Iterator[LeaseStream]:
    made = LeaseStream()
    made.begin()
    try:
        yield made
    finally:
        made.end()


class InThread:
    """The asynchronous client on a loop in a thread, with the face of the synchronous one."""

    def __init__(self, url: str, clock: DrivenClock, **wish: object) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = self._run(self._make(url, clock, wish))

    async def _make(self, url: str, clock: DrivenClock, wish: dict[str, object]) -> AsyncKillSwitchClient:
        return AsyncKillSwitchClient(url, KEYS, clock=clock, **wish)  # type: ignore[arg-type]

    def _run(self, doing: object) -> AsyncKillSwitchClient:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(20)  # type: ignore[arg-type]

    def follow(self) -> None:
        self._run(self.client.follow())

    def decision(self, rollout: str) -> Effective:
        return self.client.decision(rollout)

    def close(self) -> None:
        self._run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def make(kind: str, rig: StreamRig, token: str = READER, rollout: str = ROLLOUT) -> "KillSwitchClient | InThread":
    if kind == "asynchronous":
        return InThread(rig.url, rig.clock, token=token, rollout=rollout)
    return KillSwitchClient(rig.url, KEYS, clock=rig.clock, token=token, rollout=rollout)


@pytest.mark.parametrize("kind", ["synchronous", "asynchronous"])
class TestBothClients:
    def test_they_proceed_by_leases_stop_by_events_and_hold_when_cordon_is_gone(
        self, rig: LeaseStream, kind: str
    ) -> None:
        client = make(kind, rig)
        try:
            client.follow()
            assert client.decision(ROLLOUT).reason is EffectiveReason.NO_LEASE
            rig.proceed()
            eventually(lambda: client.decision(ROLLOUT).proceed)
            rig.close_streams()
            rig.clock.drive_to(client.decision(ROLLOUT).until_ms)
            assert client.decision(ROLLOUT).reason is EffectiveReason.LEASE_EXPIRED
        finally:
            client.close()

    def test_a_persons_kill_reaches_them(self, rig: LeaseStream, kind: str) -> None:
        client = make(kind, rig)
        try:
            client.follow()
            rig.ask(command(Action.KILL, "c-1"))
            eventually(lambda: client.decision(ROLLOUT).killed)
        finally:
            client.close()

    @pytest.mark.parametrize(("token", "rollout", "status"), [("nobody", ROLLOUT, "401"), (READER, "r-typo", "404")])
    def test_a_subscription_that_is_refused_is_an_error(
        self, rig: LeaseStream, kind: str, token: str, rollout: str, status: str
    ) -> None:
        client = make(kind, rig, token, rollout)
        try:
            with pytest.raises(RefusedError, match=status):
                client.follow()
            with pytest.raises(RefusedError, match=status):
                client.decision(rollout)
        finally:
            client.close()


def test_the_asynchronous_client_yields_every_event_in_order(rig: LeaseStream) -> None:
    words = (DecisionWord.HOLD, DecisionWord.PROCEED)
    rig.say(*(verdict(words[n % 2], at_ms=START_MS + n) for n in range(20)))

    async def read() -> list[int]:
        found = []
        async with AsyncKillSwitchClient(rig.url, KEYS, token=READER, from_start=True, clock=rig.clock) as client:
            async for switch in client.events():
                found.append(switch.number)
                if len(found) == 20:
                    return found
        raise AssertionError("the stream ended")

    assert asyncio.run(read()) == list(range(1, 21))


def test_the_lines_of_the_readme_run_and_are_fewer_than_ten(rig: LeaseStream, tmp_path: Path) -> None:
    [lines] = re.findall(r"```python\n(from pathlib [^`]*client\.wait[^`]*)```", README.read_text(), re.DOTALL)
    assert 0 < len([line for line in lines.splitlines() if line.strip()]) < 10
    keys = tmp_path / "cordon-keys.json"
    keys.write_bytes(KEYS.to_json())
    pushed: list[str] = []
    given = {"url": rig.url, "token": READER, "rollout": ROLLOUT, "push": pushed.append}
    lines = lines.replace("cordon-keys.json", str(keys)).replace("rollout.state", str(tmp_path / "rollout.state"))
    # The reader of the README has a clock of now; this listener's stands in 2024.
    lines = lines.replace("rollout=rollout,", "rollout=rollout, clock=clock,")
    rig.declare(ROLLOUT, "canary", "early", "broad")
    rig.proceed()
    exec(compile(lines, "README", "exec"), given | {"clock": rig.clock})
    assert pushed == ["canary", "early", "broad"]
