"""Signatures of webhooks: the official library reads ours, we read its, and nothing forged or old passes."""

import datetime as dt
import json
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from signals.client.webhooks import TOLERANCE_SECONDS, WebhookError, verify
from signals.delivery.webhooks.deliverer import headers_of
from signals.delivery.webhooks.secret import KEY_NAME, OVERLAP_MS, WebhookKey, WebhookKeyError
from signals.killswitch.signing import BadSignatureError, PublicKeys, SwitchError, UnknownKeyError
from signals.killswitch.verify import WrongLaneError
from support.switches import KEYS, STRANGER
from support.webhooks import KEY, event_of, subscription

ONE = subscription()
EVENT = event_of(0)
SECRET = KEY.secret(ONE.id, 1)


def posted(now_ms: int | None = None, **changed: str) -> dict[str, str]:
    at_ms = int(time.time() * 1000) if now_ms is None else now_ms
    return headers_of(KEY, ONE, EVENT, at_ms) | {name.replace("_", "-"): value for name, value in changed.items()}


def test_the_official_library_reads_our_posts() -> None:
    assert Webhook(SECRET).verify(EVENT.body, posted()) == json.loads(EVENT.body)


def test_we_read_what_the_official_library_signs() -> None:
    now = dt.datetime.now(tz=dt.UTC)
    signed = Webhook(SECRET).sign(EVENT.event_id, now, EVENT.body.decode())
    headers = {
        "Webhook-Id": EVENT.event_id,
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": signed,
    }
    assert verify(headers, EVENT.body, SECRET).id == EVENT.event_id


def test_the_body_is_the_signed_event_and_its_own_signature_can_be_checked_too() -> None:
    event = verify(posted(), EVENT.body, SECRET, keys=KEYS)
    assert (event.id, event.data.decision) == (EVENT.event_id, "kill")
    assert posted()["content-type"] == "application/cloudevents+json"


def test_after_a_rotation_both_secrets_verify_for_a_day_and_then_the_new_one_only() -> None:
    rotated_ms = int(time.time() * 1000) - 1000
    rotated = subscription(version=2, rotated_ms=rotated_ms)
    new = KEY.secret(ONE.id, 2)
    assert new != SECRET
    during = headers_of(KEY, rotated, EVENT, rotated_ms + 1000)
    for secret in (SECRET, new):
        assert Webhook(secret).verify(EVENT.body, during)
        assert verify(during, EVENT.body, secret).id == EVENT.event_id
    later_ms = rotated_ms + OVERLAP_MS
    after = headers_of(KEY, rotated, EVENT, later_ms)
    assert verify(after, EVENT.body, new, now_seconds=later_ms / 1000).id == EVENT.event_id
    with pytest.raises(WebhookError, match="rotated"):
        verify(after, EVENT.body, SECRET, now_seconds=later_ms / 1000)


def test_secrets_differ_by_subscription_version_and_installation() -> None:
    keys = (KEY, WebhookKey(bytes(32)))
    secrets = {key.secret(name, version) for key in keys for name in ("wh-1", "wh-2") for version in (1, 2)}
    assert len(secrets) == 8
    assert KEY.fingerprint != keys[1].fingerprint


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(header: str) -> None:
    headers = posted()
    del headers[header]
    with pytest.raises(WebhookError, match=header):
        verify(headers, EVENT.body, SECRET)


@pytest.mark.parametrize("seconds", [-TOLERANCE_SECONDS - 2, TOLERANCE_SECONDS + 2])
def test_a_post_sent_again_later_is_refused_as_the_official_library_does(seconds: int) -> None:
    headers = posted(int((time.time() + seconds) * 1000))
    with pytest.raises(WebhookError, match="replay"):
        verify(headers, EVENT.body, SECRET)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(EVENT.body, headers)


def test_an_id_that_is_not_the_events_is_refused_even_when_it_is_signed() -> None:
    signed = Webhook(SECRET).sign("other/1", dt.datetime.now(tz=dt.UTC), EVENT.body.decode())
    with pytest.raises(WebhookError, match="other/1"):
        verify(posted(webhook_id="other/1", webhook_signature=signed), EVENT.body, SECRET)


def test_with_public_keys_a_stranger_who_knows_the_secret_is_refused() -> None:
    with pytest.raises(UnknownKeyError):
        verify(posted(), EVENT.body, SECRET, keys=PublicKeys([STRANGER.public]))
    forged = posted(cordon_dsse_signatures=EVENT.signatures.split(":")[0] + ":" + "A" * 86 + "==")
    with pytest.raises(BadSignatureError):
        verify(forged, EVENT.body, SECRET, keys=KEYS)


def test_another_lanes_event_is_refused() -> None:
    with pytest.raises(WrongLaneError):
        verify(posted(), EVENT.body, SECRET, lane="replay-1")


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(EVENT.body) - 1))
    altered = EVENT.body[:at] + bytes([EVENT.body[at] ^ data.draw(st.integers(1, 255))]) + EVENT.body[at + 1 :]
    with pytest.raises(SwitchError):
        verify(posted(), altered, SECRET)


@given(
    st.fixed_dictionaries(
        {name: st.text(max_size=40) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    ),
    st.binary(max_size=200),
)
def test_nonsense_is_refused_with_one_kind_of_error(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(SwitchError):
        verify(headers, body, SECRET, keys=KEYS)


def test_the_key_file_is_made_once_for_its_owner_only_and_refused_where_others_may_read_it(tmp_path: Path) -> None:
    first = WebhookKey.of(tmp_path)
    assert WebhookKey.of(tmp_path).fingerprint == first.fingerprint
    path = tmp_path / "keys" / KEY_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(WebhookKeyError, match="chmod 600"):
        WebhookKey.of(tmp_path)
    path.chmod(0o600)
    path.write_text("not a key\n")
    with pytest.raises(WebhookKeyError, match="backup"):
        WebhookKey.of(tmp_path)
