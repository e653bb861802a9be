"""The gateway as a replay sees it: post reports, declare rollouts, drive the clock, and lose nothing on the way.

A post that is answered with 429 or 503, or not at all, is posted again after Retry-After; sequence numbers make a post
that was taken without our knowing harmless. Patience is bounded: after it, the replay ends with an error, never with
reports silently left out.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence

import httpx2
import msgspec

from ingest.outcome import Outcome
from ingest.rollouts import RolloutDeclaration

REPORTS_PER_POST_MAX = 2000
_AGAIN = frozenset({429, 503})
_WAIT_SECONDS_MAX = 30.0
_JSON = {"content-type": "application/json"}
_encode = msgspec.json.Encoder().encode


class ReplayError(Exception):
    """The replay cannot go on; the message says why and what to do."""


class Refused(msgspec.Struct):
    """One report that a post's answer names as not taken."""

    index: int
    reason: str
    detail: str = ""


class PostAnswer(msgspec.Struct):
    """What the gateway says to a post of reports."""

    accepted: int
    refused: list[Refused] = []


class ClockAnswer(msgspec.Struct):
    """What the gateway says once its clock is driven.

    Attributes:
        at_ms: the gateway's clock.
        reached_ms: event time up to which everything has been through to the verdicts and the kill switch.
        killswitch_events: kill-switch events issued in this lane so far, all of them on the stream by now or soon.
    """

    at_ms: int
    reached_ms: int
    killswitch_events: int


class GatewayClient:
    """Talks to one gateway's reports listener.

    Attributes:
        posts: answers to posts of reports.
        retries: requests that had to be made again.
        accepted: reports that the gateway took.
        refused: reports that it refused for good, by reason.
    """

    def __init__(
        self,
        http: httpx2.Client,
        *,
        reports_per_post_max: int = REPORTS_PER_POST_MAX,
        patience_seconds: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Use `http`, whose base URL is the reports listener and whose headers carry the token.

        Args:
            http: see above.
            reports_per_post_max: reports in one post.
            patience_seconds: how long one request may be retried in all.
            sleep: waits that many seconds.
        """
        self._http = http
        self._per_post = reports_per_post_max
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        self.posts = 0
        self.retries = 0
        self.accepted = 0
        self.refused: Counter[str] = Counter()

    def post_reports(self, reports: Sequence[bytes]) -> None:
        """Post reports in order, in batches; return once each is taken or refused for good.

        Raises:
            ReplayError: the gateway refused a whole post, or patience ran out.
        """
        for start in range(0, len(reports), self._per_post):
            self._post_batch(list(reports[start : start + self._per_post]))

    def _post_batch(self, reports: list[bytes]) -> None:
        waited = 0.0
        while reports:
            response = self._request("/v1/reports", b"[%b]" % b",".join(reports), frozenset({202, 400}))
            try:
                answer = msgspec.json.decode(response.content, type=PostAnswer)
            except msgspec.MsgspecError:
                raise ReplayError(f"the gateway answered a post with {_told(response)}") from None
            self.posts += 1
            self.accepted += answer.accepted
            again = [reports[each.index] for each in answer.refused if each.reason == Outcome.THROTTLED]
            self.refused.update(each.reason for each in answer.refused if each.reason != Outcome.THROTTLED)
            if again:
                waited = self._wait(1.0, waited, "some reports are over their tenant's rate")
            reports = again

    def declare(self, declaration: RolloutDeclaration) -> None:
        """Declare a rollout.

        Raises:
            ReplayError: it was refused, or patience ran out.
        """
        self._request("/v1/rollouts", _encode(declaration), frozenset({200, 201, 202}))

    def drive(self, at_ms: int, wait_for_ms: int | None) -> ClockAnswer:
        """Drive the gateway's clock to `at_ms`; return once all stages have dealt with what lies before `wait_for_ms`.

        Raises:
            ReplayError: refused (the live lane cannot be driven), or patience ran out.
        """
        body = {"at_ms": at_ms} | ({} if wait_for_ms is None else {"wait_for_ms": wait_for_ms})
        response = self._request("/v1/clock", _encode(body), frozenset({200}))
        try:
            return msgspec.json.decode(response.content, type=ClockAnswer)
        except msgspec.MsgspecError as error:
            raise ReplayError(f"the gateway answered /v1/clock with {_told(response)}: {error}") from None

    def _request(self, path: str, body: bytes, wanted: frozenset[int]) -> httpx2.Response:
        waited = 0.0
        while True:
            try:
                response = self._http.post(path, content=body, headers=_JSON)
            except httpx2.TransportError as error:
                waited = self._wait(0.5, waited, f"{path}: {error}")
                continue
            if response.status_code in wanted:
                return response
            if response.status_code not in _AGAIN:
                raise ReplayError(f"the gateway answered {path} with {_told(response)}")
            waited = self._wait(_retry_after_seconds(response), waited, f"{path}: {_told(response)}")

    def _wait(self, seconds: float, waited: float, why: str) -> float:
        """Sleep before a retry and return how long that request has waited in all."""
        if waited >= self._patience_seconds:
            raise ReplayError(f"gave up after {waited:g} s of retries ({why}): replay again, in a fresh lane")
        self.retries += 1
        self._sleep(seconds)
        return waited + seconds


def _retry_after_seconds(response: httpx2.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), _WAIT_SECONDS_MAX) if text.isdecimal() else 1.0


def _told(response: httpx2.Response) -> str:
    return f"{response.status_code} {response.text[:300]}"
