"""Cordon as a drill sees it over HTTP: reports in, and what it says of the drill's rollout."""

from collections.abc import Sequence
from typing import TypeVar

import httpx2
import msgspec

from deploy.drill.access import Access
from deploy.drill.errors import DrillError
from detectors.drill_judge import Counted, LastWord
from detectors.verdict import Evidence
from ingest.endpoint.post import PostError, post_reports
from ingest.events import Report
from ingest.rollouts import RolloutDeclaration
from ingest.sight import Sight

_HTTP_SECONDS = 10.0
_NOT_ADMITTED = frozenset({401, 403})
_NO_VERDICT = "no_verdict"
_Answer = TypeVar("_Answer")


class RolloutWord(msgspec.Struct, kw_only=True):
    """What the streams listener says of one rollout, as far as a drill cares.

    Attributes:
        reason: of the verdict; `no_verdict` where none was given.
        killed: a live kill stands.
        decided_by: who moved the switch last: `detector`, or a person.
    """

    rollout: str
    vendor: str
    product: str
    version: str
    reason: str
    sentence: str = ""
    killed: bool = False
    decided_by: str = ""
    evidence: Evidence | None = None


class _Rollouts(msgspec.Struct):
    verdicts: list[RolloutWord]


def counted_in(evidence: Evidence | None) -> Counted | None:
    """Return what evidence says was counted; None without evidence."""
    if evidence is None:
        return None
    return Counted(
        exposed=evidence.exposed,
        crashes_exposed=evidence.crashes_exposed,
        tenants=evidence.tenants,
        log10_evidence=evidence.log10_evidence_max,
    )


class DrillClient:
    """Talks to one Cordon; used by one thread."""

    def __init__(self, access: Access) -> None:
        """Prepare; nothing is asked yet."""
        self._access = access
        self._http = httpx2.Client(
            timeout=_HTTP_SECONDS, trust_env=False, headers={"authorization": f"Bearer {access.token}"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def admitted(self, rollout: str) -> bool:
        """Tell whether both listeners know the token and let it read: each learns of a new one a moment later.

        Args:
            rollout: any id.

        Raises:
            DrillError: a listener does not answer.
        """
        asked = [f"{url.rstrip('/')}/v1/rollouts/{rollout}" for url in (self._access.gateway, self._access.streams)]
        try:
            answers = [self._http.get(asked[0]), self._http.get(f"{asked[1]}/verdict")]
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DrillError(
                f"no Cordon answers at {self._access.gateway} and {self._access.streams}: {error}"
            ) from error
        return not any(answer.status_code in _NOT_ADMITTED for answer in answers)

    def post(self, reports: Sequence[Report]) -> None:
        """Post reports; return once all are taken.

        Raises:
            PostError: no gateway answers, or it did not take one of them.
        """
        post_reports(self._access.gateway, self._access.token, reports)

    def prepare(self, reports: Sequence[Report]) -> None:
        """Post reports that have to be taken for a drill to begin.

        Raises:
            DrillError: they were not.
        """
        try:
            self.post(reports)
        except PostError as error:
            raise DrillError(f"the drill's devices could not report: {error}") from error

    def declare(self, declaration: RolloutDeclaration) -> None:
        """Declare the drill's rollout.

        Raises:
            DrillError: no gateway answers, or it refused.
        """
        url = f"{self._access.gateway.rstrip('/')}/v1/rollouts"
        headers = {"content-type": "application/json"}
        try:
            answer = self._http.post(url, content=msgspec.json.encode(declaration), headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DrillError(f"no gateway answers at {url}: {error}") from error
        if answer.status_code not in (200, 201):
            raise DrillError(f"{url} refused the drill: {answer.status_code} {answer.text[:300]}")

    def rollouts(self) -> list[RolloutWord]:
        """Return the rollouts that were spoken of last, newest first.

        Raises:
            DrillError: the listener does not answer, or refuses the token.
        """
        return self._get("/v1/verdicts", _Rollouts).verdicts

    def knows(self, rollout: str) -> bool:
        """Tell whether the streams listener knows a rollout.

        Raises:
            DrillError: the listener does not answer, or refuses the token.
        """
        return self._ask(f"/v1/rollouts/{rollout}/verdict").status_code != 404

    def last_word(self, rollout: str) -> LastWord:
        """Return what Cordon says of a rollout and of its own sight; nothing where it does not answer."""
        try:
            word = self._get(f"/v1/rollouts/{rollout}/verdict", RolloutWord)
        except DrillError as error:
            return LastWord(unseen=str(error))
        return LastWord(
            judged=word.reason != _NO_VERDICT,
            sentence=word.sentence,
            counted=counted_in(word.evidence),
            unseen=self._unseen(),
        )

    def _unseen(self) -> str:
        try:
            sight = self._get("/v1/sight", Sight)
        except DrillError:
            return ""
        return "; ".join(f"{one.share}: {one.detail}" for one in sight.why[:3])

    def _get(self, path: str, kind: type[_Answer]) -> _Answer:
        answer = self._ask(path)
        if answer.status_code != 200:
            raise DrillError(f"{self._access.streams}{path} answered {answer.status_code}: {answer.text[:300]}")
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError as error:
            raise DrillError(f"{self._access.streams}{path} does not answer as Cordon does: {error}") from error

    def _ask(self, path: str) -> httpx2.Response:
        try:
            answer = self._http.get(f"{self._access.streams.rstrip('/')}{path}")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DrillError(f"no Cordon answers at {self._access.streams}: {error}") from error
        if answer.status_code in _NOT_ADMITTED:
            raise DrillError(f"{self._access.streams} refuses the token: {answer.text[:300]}")
        return answer
