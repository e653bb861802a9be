"""Posting reports to a gateway: one request, its answer, and errors that say what to do."""

from collections.abc import Sequence

import httpx2
import msgspec

from ingest.events import Report, encoder

TIMEOUT_SECONDS = 30.0


class PostError(Exception):
    """The gateway did not take the reports; the message says why and what to do.

    Attributes:
        reason: the gateway's own word for it; empty where it gave none.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        """Keep the message and the gateway's word."""
        super().__init__(message)
        self.reason = reason


class RefusedReport(msgspec.Struct, kw_only=True):
    """One report that was not taken."""

    index: int
    reason: str
    detail: str = ""


class PostAnswer(msgspec.Struct, kw_only=True):
    """What the gateway said."""

    accepted: int = 0
    refused: list[RefusedReport] = []
    next_check_in_s: int = 0


class _Refusal(msgspec.Struct):
    reason: str = "unknown"
    detail: str = ""


def post_reports(gateway: str, token: str, reports: Sequence[Report]) -> PostAnswer:
    """Post reports and return the gateway's answer.

    Raises:
        PostError: no gateway answers there, it refused the request, or it refused a report.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with httpx2.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            got = client.post(
                f"{gateway.rstrip('/')}/v1/reports", content=encoder.encode(list(reports)), headers=headers
            )
    except httpx2.HTTPError as error:
        raise PostError(
            f"no gateway answers at {gateway} ({error}): start one with `cordon up`, or name another"
        ) from error
    try:
        if got.status_code == 202 or (got.status_code == 400 and b'"refused"' in got.content):
            answer = msgspec.json.decode(got.content, type=PostAnswer)
        else:
            refusal = msgspec.json.decode(got.content, type=_Refusal)
            raise PostError(f"{gateway} answered {got.status_code} {refusal.reason}: {refusal.detail}")
    except msgspec.MsgspecError as error:
        raise PostError(f"{gateway} answered {got.status_code}, but not as a Cordon gateway does: {error}") from error
    if answer.refused:
        first = answer.refused[0]
        message = f"{gateway} refused report {first.index}: {first.reason}: {first.detail}"
        raise PostError(message, first.reason)
    return answer
