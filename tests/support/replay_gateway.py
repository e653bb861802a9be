"""A gateway and its kill switch for the replay's tests: refuses now and then, kills at the n-th crash."""

import random
from collections.abc import Callable

import httpx2
import msgspec

from detectors.verdict import DecisionWord
from ingest.events import BootLoop, Bsod, Report, report_decoder
from ingest.rollouts import RolloutDeclaration, rollout_id
from signals.events import Switch, SwitchState

TOKEN_HEADER = {"authorization": "Bearer test"}


def switch(number: int, watermark_ms: int, state: SwitchState, **changes: object) -> Switch:
    """Return a kill-switch event for the small scenario's update."""
    stops = {SwitchState.HELD: DecisionWord.HOLD, SwitchState.KILLED: DecisionWord.KILL}
    event = Switch(
        rollout=rollout_id("acme", "content", "291"),
        number=number,
        previous_digest="",
        lane="replay",
        vendor="acme",
        product="content",
        version="291",
        state=state,
        previous_state=SwitchState.OBSERVING,
        decision=stops.get(state, DecisionWord.PROCEED),
        cause="detector",
        reason="kill_evidence",
        sentence=f"event {number}",
        watermark_ms=watermark_ms,
        decided_ms=watermark_ms,
    )
    return msgspec.structs.replace(event, **changes)


class FakeGateway:
    """Answers like a gateway, and like the stages behind it.

    Attributes:
        reports: what was taken, in order, each once.
        seen: every body that arrived with a post that was answered 202, duplicates included.
        clock_ms: where the clock was driven to.
        events: kill-switch events issued; those that have to be out by `wait_for_ms` are out.
    """

    def __init__(self, kill_at_crashes: int = 10**9, refusals: float = 0.0, eager: bool = True, seed: int = 1) -> None:
        """Prepare.

        Args:
            kill_at_crashes: reports of the bad module that decide a kill at the next clock post's time.
            refusals: share of requests answered 429 or 503, or not at all.
            eager: tell of a kill at once; otherwise only when the clock post waits for its time.
            seed: of the refusals.
        """
        self.reports: list[Report] = []
        self.seen: list[bytes] = []
        self.declared: list[tuple[int, RolloutDeclaration]] = []
        self.clock_ms = 0
        self.clock_posts: list[tuple[int, int | None]] = []
        self.events: list[Switch] = []
        self.sizes: list[int] = []
        self._kill_at_crashes = kill_at_crashes
        self._refusals = refusals
        self._eager = eager
        self._random = random.Random(seed)
        self._decided: list[Switch] = []

    def client(self) -> httpx2.Client:
        """Return a client that reaches this gateway."""
        return httpx2.Client(base_url="http://fake", transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        handlers: dict[str, Callable[[bytes], httpx2.Response]] = {
            "/v1/reports": self._reports,
            "/v1/clock": self._clock,
            "/v1/rollouts": self._rollouts,
        }
        chance = self._random.random() / self._refusals if self._refusals else 2.0
        if chance < 0.3:
            return httpx2.Response(503, headers={"retry-after": "2"}, json={"reason": "overloaded"})
        if chance < 0.6:
            return httpx2.Response(429, headers={"retry-after": "1"}, json={"reason": "throttled"})
        answer = handlers[request.url.path](request.content)
        if chance < 1.0:
            # The request was served, but its answer got lost.
            raise httpx2.ReadError("connection reset", request=request)
        return answer

    def _reports(self, body: bytes) -> httpx2.Response:
        raw = msgspec.json.decode(body, type=list[msgspec.Raw])
        self.sizes.append(len(raw))
        self.seen += [bytes(each) for each in raw]
        self.reports += [report_decoder.decode(each) for each in raw]
        return httpx2.Response(202, json={"accepted": len(raw), "refused": [], "next_check_in_s": 300})

    def _clock(self, body: bytes) -> httpx2.Response:
        wanted = msgspec.json.decode(body)
        at_ms, wait_for_ms = wanted["at_ms"], wanted.get("wait_for_ms")
        assert at_ms >= self.clock_ms
        self.clock_ms = at_ms
        self.clock_posts.append((at_ms, wait_for_ms))
        if not self._decided and self._bad_crashes() >= self._kill_at_crashes:
            self._decided.append(switch(1, at_ms, SwitchState.KILLED))
        reached_ms = at_ms if self._eager else wait_for_ms or 0
        due = [each for each in self._decided if each.watermark_ms <= reached_ms]
        self.events += due[len(self.events) :]
        return httpx2.Response(
            200, json={"at_ms": at_ms, "reached_ms": wait_for_ms or at_ms, "killswitch_events": len(self.events)}
        )

    def _bad_crashes(self) -> int:
        return sum(isinstance(each, Bsod | BootLoop) and each.module == "acme.sys" for each in self.reports)

    def _rollouts(self, body: bytes) -> httpx2.Response:
        self.declared.append((self.clock_ms, msgspec.json.decode(body, type=RolloutDeclaration)))
        return httpx2.Response(201, json={})


class FakeSubscription:
    """Hands over what the fake gateway has issued."""

    def __init__(self, gateway: FakeGateway) -> None:
        self._gateway = gateway
        self._handed_over = 0

    def received(self, count: int, timeout_seconds: float) -> list[Switch]:
        assert len(self._gateway.events) >= count
        new = self._gateway.events[self._handed_over :]
        self._handed_over = len(self._gateway.events)
        return new

    def close(self) -> None:
        return
