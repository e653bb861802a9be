import pytest
from cryptography.fernet import Fernet

from dashboards.console import session
from dashboards.console.session import SESSION_SECONDS, SIGN_IN_SECONDS, Sessions
from ingest.clock import DrivenClock
from signals.delivery.http.context import PrincipalLike
from support.streams import OPERATOR, PEOPLE, authenticate

KEY, START_MS = bytes(range(32)), 1_721_621_340_000


def sessions(clock: DrivenClock) -> Sessions:
    return Sessions(KEY, authenticate, clock)


def test_a_cookie_opens_for_twelve_hours_and_not_a_second_longer() -> None:
    clock = DrivenClock(START_MS)
    made, cookie = sessions(clock).begin(OPERATOR)
    clock.drive_to(START_MS + SESSION_SECONDS * 1000)
    opened = sessions(clock).open(cookie)
    assert opened is not None
    assert opened.principal == PEOPLE[OPERATOR]
    assert opened.form == made.form
    clock.drive_to(START_MS + SESSION_SECONDS * 1000 + 1000)
    assert sessions(clock).open(cookie) is None


def test_a_cookie_that_was_opened_before_expires_all_the_same() -> None:
    clock = DrivenClock(START_MS)
    book = sessions(clock)
    cookies = {SESSION_SECONDS: book.begin(OPERATOR)[1], SIGN_IN_SECONDS: book.begin()[1]}
    for seconds, cookie in sorted(cookies.items()):
        assert book.open(cookie) is not None
        clock.drive_to(START_MS + seconds * 1000)
        assert book.open(cookie) is not None
        clock.drive_to(START_MS + seconds * 1000 + 1000)
        assert book.open(cookie) is None
        assert book.open(cookie) is None


def test_cookies_that_are_kept_open_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_OPENED_MAX", 3)
    book = sessions(DrivenClock(START_MS))
    for cookie in [book.begin(OPERATOR)[1] for _ in range(10)]:
        assert book.open(cookie) is not None
        assert len(book._opened) <= 3


def test_before_anybody_signed_in_a_cookie_only_carries_the_forms_secret_for_an_hour() -> None:
    clock = DrivenClock(START_MS)
    made, cookie = sessions(clock).begin()
    opened = sessions(clock).open(cookie)
    assert opened is not None
    assert (opened.principal, opened.header) == (None, None)
    assert opened.owns(made.form)
    assert not opened.owns("")
    assert not opened.owns(made.form[:-1])
    clock.drive_to(START_MS + SIGN_IN_SECONDS * 1000 + 1000)
    assert sessions(clock).open(cookie) is None


def test_the_cookie_does_not_show_its_token_and_only_our_key_opens_it() -> None:
    clock = DrivenClock(START_MS)
    _, cookie = sessions(clock).begin(OPERATOR)
    assert OPERATOR not in cookie
    assert Sessions(bytes(32), authenticate, clock).open(cookie) is None
    forged = Fernet(Fernet.generate_key()).encrypt(b'{"token":"operator-token","form":"x"}').decode()
    turned = cookie[:40] + ("A" if cookie[40] != "A" else "B") + cookie[41:]
    assert [sessions(clock).open(one) for one in (None, "", "x" * 5000, "ä", forged, turned)] == [None] * 6


def test_a_revoked_token_opens_nothing_from_then_on() -> None:
    known: dict[str | None, PrincipalLike] = {f"Bearer {OPERATOR}": PEOPLE[OPERATOR]}
    book = Sessions(KEY, known.get, DrivenClock(START_MS))
    _, cookie = book.begin(OPERATOR)
    opened = book.open(cookie)
    assert opened is not None
    assert opened.principal is not None
    known.clear()
    assert book.open(cookie) is None
