"""What a client knew, on disk: one file, written whole beside the old one and put in its place.

Read when a client starts, so that it goes on where it was and is never more trusting than before. Every event and lease
in it is the signed envelope, verified again when it is read. Invariants: a state of another lane or subscription, one
whose signatures the keys do not confirm, or one that was altered is refused with a message; a crash leaves the old file
or the new one.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ingest.events import UNREADABLE_ERRORS
from signals.client.book import Known
from signals.client.errors import StateError
from signals.events import Envelope
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import VerifiedEvent, VerifiedLease, open_event, open_lease

ROLLOUTS_MAX = 10_000


class _Rollout(msgspec.Struct, kw_only=True):
    event: Envelope | None = None
    lease: Envelope | None = None


class _Body(msgspec.Struct, kw_only=True):
    schema: int = 1
    lane: str
    rollout: str | None
    last_event_id: str | None
    rollouts: list[_Rollout]


class _File(msgspec.Struct, kw_only=True):
    digest: str
    body: msgspec.Raw


_decoder = msgspec.json.Decoder(_File)
_body_decoder = msgspec.json.Decoder(_Body)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Kept:
    """What a state file held: where to resume, and of each rollout its last event and lease."""

    last_event_id: str | None
    rollouts: list[tuple[VerifiedEvent | None, VerifiedLease | None]]


def read_state(path: Path, keys: PublicKeys, lane: str, rollout: str | None) -> Kept | None:
    """Return what the file holds, or None if there is none yet.

    Args:
        path: the file.
        keys: whose signatures are believed.
        lane: the only lane believed.
        rollout: the only rollout subscribed to; None for all.

    Raises:
        StateError: the file can't be used; the message says why.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read the state in {path}: {error.strerror}") from error
    try:
        file = _decoder.decode(data)
        body = _body_decoder.decode(file.body)
    except UNREADABLE_ERRORS as error:
        raise StateError(_refuse(path, f"it is no state of a client ({error})")) from error
    if hashlib.sha256(file.body).hexdigest() != file.digest:
        raise StateError(_refuse(path, "it was altered: its digest does not fit"))
    if body.schema != 1:
        raise StateError(_refuse(path, f"its schema is {body.schema}, and this release reads 1"))
    if (body.lane, body.rollout) != (lane, rollout):
        raise StateError(
            f"the state in {path} is of lane {body.lane!r} and rollout {body.rollout or 'any'}, this client follows "
            f"lane {lane!r} and rollout {rollout or 'any'}: give each subscription a file of its own"
        )
    try:
        return Kept(body.last_event_id, [_verify(item, keys) for item in body.rollouts])
    except SwitchError as error:
        raise StateError(_refuse(path, f"it is not signed by the keys given: {error}")) from error


def write_state(
    path: Path, lane: str, rollout: str | None, last_event_id: str | None, known: Mapping[str, Known]
) -> None:
    """Write the state, durably and all at once.

    Raises:
        StateError: it can't be written.
    """
    items = [
        _Rollout(event=one.event.envelope if one.event else None, lease=one.lease.envelope if one.lease else None)
        # Of more than fit, those that nothing stops are let go first: of them a new lease tells.
        for one in sorted(known.values(), key=lambda one: one.stopped)[-ROLLOUTS_MAX:]
        if one.event is not None or one.lease is not None
    ]
    body = _encoder.encode(_Body(lane=lane, rollout=rollout, last_event_id=last_event_id, rollouts=items))
    data = _encoder.encode(_File(digest=hashlib.sha256(body).hexdigest(), body=msgspec.Raw(body)))
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise StateError(f"cannot write the state to {path}: {error.strerror}") from error


def _verify(item: _Rollout, keys: PublicKeys) -> tuple[VerifiedEvent | None, VerifiedLease | None]:
    event = open_event(item.event, keys) if item.event is not None else None
    return event, open_lease(item.lease, keys) if item.lease is not None else None


def _refuse(path: Path, why: str) -> str:
    return (
        f"the state in {path} can't be used: {why}. Remove it to begin anew; until events come, everything is on hold"
    )
