"""An outbox under its Owner with a dispatcher, on a log in memory, by a clock that tests drive; and vendors to page.

`Rig.turn` is one turn of the service's loop without its threads. `Vendor` stands for a paging service that keeps
incidents by key, and misbehaves as it is told.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from detectors.scope import WHOLE
from detectors.verdict import DecisionWord, Evidence
from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.events import ScopedStop, Switch, SwitchState
from signals.killswitch.event import cloud_event
from signals.pagers.channels.interface import Answer, Message
from signals.pagers.dispatch import Dispatcher, Job
from signals.pagers.outbox import Outbox, OutboxSettings
from signals.pagers.records import PageAttempt, PageOrder, attempt_decoder
from signals.pagers.registry import Registry, parse
from signals.pagers.service import message_of
from signals.pagers.words import Answered, Level, Step
from support.switches import KEYS, ROLLOUT, SIGNER, START_MS, SwitchRig

REGISTRY = """
[default]
routes = ["soc"]
[routes.soc]
channel = "pagerduty"
secret_file = "soc.key"
[routes.pager]
channel = "pagerduty"
secret_file = "pager.key"
fallback = "duty"
[routes.duty]
channel = "jsm"
secret_file = "duty.key"
[routes.chat]
channel = "slack"
secret_file = "chat.url"
[routes.other]
channel = "pagerduty"
secret_file = "other.key"
[vendors.crowdstrike]
routes = ["pager", "chat"]
watching = "chat"
[vendors.acme]
routes = ["other"]
[[modules]]
match = "csagent.sys"
vendor = "crowdstrike"
[[modules]]
match = "acme*.sys"
vendor = "acme"
"""

DECISIONS = {
    SwitchState.OBSERVING: DecisionWord.PROCEED,
    SwitchState.WATCHING: DecisionWord.UNKNOWN,
    SwitchState.HELD: DecisionWord.HOLD,
    SwitchState.KILLED: DecisionWord.KILL,
    SwitchState.RELEASED: DecisionWord.PROCEED,
    SwitchState.MUTED: DecisionWord.PROCEED,
}


def evidence(**fields: Any) -> Evidence:
    """Return the numbers of a kill, with what a test wants otherwise."""
    usual: dict[str, Any] = {
        "log10_evidence": 7.2,
        "log10_needed_to_hold": 3.0,
        "log10_needed_to_kill": 6.0,
        "tolerated_ratio": 1.5,
        "exposed": 180,
        "crashes_exposed": 11,
        "crashes_control": 1,
        "tenants": 4,
        "rate_ratio": 310.5,
        "rate_ratio_low": 44.1,
        "rate_ratio_high": 4100.0,
        "first_crash_ms": START_MS,
        "signatures": [("csagent.sys|0x50", 10), ("ntfs.sys|0x24", 1)],
    }
    return Evidence(**(usual | fields))


def switch(number: int, state: SwitchState, at_ms: int, *, rollout: str = ROLLOUT, **fields: Any) -> Switch:
    """Return the data of an event."""
    usual: dict[str, Any] = {
        "previous_digest": "",
        "lane": "live",
        "vendor": "crowdstrike",
        "product": "falcon-content",
        "version": "291",
        "previous_state": SwitchState.OBSERVING,
        "decision": DECISIONS[state],
        "cause": "person" if state is SwitchState.RELEASED else "detector",
        "reason": "kill_evidence",
        "sentence": "evidence 10^7.2 >= 10^6",
        "watermark_ms": at_ms,
        "decided_ms": at_ms,
        "evidence": evidence(),
    }
    stops = state in (SwitchState.HELD, SwitchState.KILLED)
    if not fields.get("dry_run") and not fields.get("scope"):
        usual["whole"] = state
        usual["whole_stop"] = ScopedStop(scope=WHOLE, state=state, number=number) if stops else None
    return Switch(rollout=rollout, number=number, state=state, **(usual | fields))


@dataclass(slots=True)
class Vendor:
    """A paging service: incidents by key, and how often somebody was woken.

    Attributes:
        open: the level of each open key.
        opened: how often each key was opened; more than once is a second incident.
        strays: updates of keys that were not open.
        woken: (when, key, level) of each trigger that opened a key or made it louder.
        behaves: what comes of an attempt: whether it is applied, and the answer.
    """

    behaves: Callable[[Message], tuple[bool, Answer]] = lambda _: (True, Answer(Answered.DELIVERED, 202))
    open: dict[str, Level] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    woken: list[tuple[int, str, Level]] = field(default_factory=list)
    seen: list[Message] = field(default_factory=list)
    strays: int = 0

    def take(self, message: Message, now_ms: int) -> Answer:
        """Take one attempt."""
        self.seen.append(message)
        applied, answer = self.behaves(message)
        if applied:
            self._apply(message, now_ms)
        return answer

    def _apply(self, message: Message, now_ms: int) -> None:
        if message.step is Step.RESOLVE:
            self.open.pop(message.key, None)
        elif message.step is Step.UPDATE and message.key not in self.open:
            # As with a note on an alert that there is not: taken, and lost.
            self.strays += 1
        elif message.step in (Step.TRIGGER, Step.UPDATE):
            before = self.open.get(message.key)
            if before is None:
                self.opened[message.key] = self.opened.get(message.key, 0) + 1
            if before is None or message.level.rank > before.rank:
                self.woken.append((now_ms, message.key, message.level))
            self.open[message.key] = message.level


class Rig:
    """Log, outbox, dispatcher and vendors; `restart` ends them without a word and makes others from the log."""

    def __init__(
        self,
        registry: str = REGISTRY,
        seed: int = 0,
        settings: OutboxSettings | None = None,
        beside: SwitchRig | None = None,
    ) -> None:
        self.topics = Topics()
        self.clock = DrivenClock(START_MS) if beside is None else beside.clock
        self.log = MemoryLog(topic_specs(self.topics), self.clock) if beside is None else beside.log
        self.metrics = Metrics()
        self.registry: Registry = parse(registry)
        self.settings = settings or OutboxSettings()
        self.chance = random.Random(seed)
        self.vendors: dict[str, Vendor] = {name: Vendor() for name in self.registry.routes}
        self.under_way: list[tuple[int, Job, Answer]] = []
        self.latency_ms: Callable[[], int] = lambda: 100
        self._numbers: dict[str, int] = {}
        self._orders = 0
        self.restart()

    def source(self, word: str) -> TopicPartition:
        return TopicPartition(self.topics.name(word), 0)

    def restart(self) -> None:
        self.under_way.clear()
        self.stage = Outbox(
            self.log, self.topics, 0, KEYS, lambda: self.registry, self.clock, self.metrics, self.settings
        )
        self.owner = Owner(self.log, "pagers/0", "pagers", self.stage, self.source("pages"), self.clock)
        self.dispatcher = Dispatcher(lambda _: 600, self.chance)
        self.owner.start()

    def event(self, state: SwitchState, rollout: str = ROLLOUT, **fields: Any) -> Switch:
        """Append the next event of a rollout, decided now."""
        number = self._numbers[rollout] = self._numbers.get(rollout, 0) + 1
        said = switch(number, state, self.clock.now_ms(), rollout=rollout, **fields)
        envelope = SIGNER.sign(encoder.encode(cloud_event(said)))
        self.log.append([Entry(*self.source("killswitch"), rollout.encode(), encoder.encode(envelope))])
        return said

    def say(self, word: str, value: Any, key: str = ROLLOUT) -> None:
        self.log.append([Entry(*self.source(word), key.encode(), encoder.encode(value))])

    def order(self, action: Any, **fields: Any) -> None:
        self._orders += 1
        self.say(
            "pageorders",
            PageOrder(order_id=f"o-{self._orders}", action=action, name="ada", at_ms=self.clock.now_ms(), **fields),
        )

    def turn(self) -> None:
        """Do what one turn of the service does; channels answer after their latency."""
        now_ms = self.clock.now_ms()
        ready = [item for item in self.under_way if item[0] <= now_ms]
        self.under_way = [item for item in self.under_way if item[0] > now_ms]
        said = [self.dispatcher.done(job, "pagerduty", answer, now_ms, 0.1) for _, job, answer in ready]
        if said:
            pagings = self.source("pagings")
            self.log.append([Entry(*pagings, one.rollout.encode(), encoder.encode(one)) for one in said])
        while self.owner.step(0.0):
            pass
        for rollout, case in self.stage.take_changed():
            if case is None:
                self.dispatcher.forget(rollout)
            else:
                self.dispatcher.learn(case)
        for job in self.dispatcher.next_jobs(now_ms):
            answer = self.vendors[job.route].take(message_of(job, ""), now_ms)
            self.under_way.append((now_ms + self.latency_ms(), job, answer))

    def run(self, seconds: float, step_ms: int = 500) -> None:
        """Let time pass, turning whenever something is due and at least every `step_ms`."""
        end_ms = self.clock.now_ms() + int(seconds * 1000)
        self.turn()
        while self.clock.now_ms() < end_ms:
            now_ms = self.clock.now_ms()
            due = [item[0] for item in self.under_way]
            next_ms = self.dispatcher.due_ms(now_ms)
            due += [next_ms] if next_ms is not None else []
            self.clock.drive_to(max(now_ms + 1, min([now_ms + step_ms, end_ms, *due])))
            self.turn()

    def attempts(self) -> Sequence[PageAttempt]:
        records = self.log.read(self.source("pagings"), 0, 100_000)
        return [attempt_decoder.decode(record.value) for record in records if record.value is not None]

    def sent(self, route: str) -> list[tuple[str, str]]:
        """Return (step, level) of all that a route was sent, first tries and retries."""
        return [(one.step.value, one.level.value) for one in self.vendors[route].seen]


def asdict(value: Any) -> Any:
    return msgspec.to_builtins(value)
