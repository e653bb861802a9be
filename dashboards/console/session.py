"""Who is signed in: a token kept in an encrypted, signed cookie that expires.

In front of every page. The cookie holds the token itself, encrypted, so there is no session to store and nothing to
share between processes but a key (what was decrypted is kept in memory, to spare doing it again); and the token is
looked up again at every request. Invariants: a token that is
revoked opens nothing from then on, and a cookie says nothing to whoever has no key.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from ingest.clock import Clock
from ingest.events import UNREADABLE_ERRORS
from signals.delivery.http.context import Authenticate, PrincipalLike

COOKIE = "cordon_session"
SESSION_SECONDS = 12 * 3600
# Long enough to fetch a token from wherever it is kept.
SIGN_IN_SECONDS = 3600
_COOKIE_CHARACTERS_MAX = 2048
_FORM_BYTES = 24
_OPENED_MAX = 1000


class _Kept(msgspec.Struct, frozen=True):
    token: str
    form: str


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's session.

    Attributes:
        form: what every form of this session has to bring along, so that no other site can post one.
        header: the `Authorization` header that it stands for; None before somebody has signed in.
        principal: who that is; None before.
    """

    form: str
    header: str | None = None
    principal: PrincipalLike | None = None

    def owns(self, form: str) -> bool:
        """Tell whether a posted form was given out in this session."""
        return hmac.compare_digest(self.form.encode(), form.encode("utf-8", "replace"))


class Sessions:
    """Makes and opens cookies; any thread."""

    def __init__(self, key: bytes, authenticate: Authenticate, clock: Clock) -> None:
        """Take what cookies are encrypted with, and by whom tokens are known.

        Args:
            key: 32 secret bytes, the same for every process behind one address.
            authenticate: gives the principal of an `Authorization` header, or None.
            clock: the wall clock, by which cookies expire.
        """
        self._fernet = Fernet(base64.urlsafe_b64encode(key))
        self._authenticate = authenticate
        self._clock = clock
        self._decoder = msgspec.json.Decoder(_Kept)
        self._opened: dict[str, tuple[_Kept, int]] = {}

    def open(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None where it is forged, expired, or its token is not known any more."""
        if cookie is None or len(cookie) > _COOKIE_CHARACTERS_MAX:
            return None
        now_seconds = self._clock.now_ms() // 1000
        opened = self._opened.get(cookie) or self._decrypted(cookie, now_seconds)
        if opened is None:
            return None
        kept, made_seconds = opened
        if now_seconds - made_seconds > (SESSION_SECONDS if kept.token else SIGN_IN_SECONDS):
            self._opened.pop(cookie, None)
            return None
        if not kept.token:
            return Session(kept.form)
        header = f"Bearer {kept.token}"
        principal = self._authenticate(header)
        return Session(kept.form, header, principal) if principal is not None else None

    def _decrypted(self, cookie: str, now_seconds: int) -> tuple[_Kept, int] | None:
        """Return what a cookie that is ours says, and when it was made; kept, since a page asks for much at once."""
        try:
            kept = self._decoder.decode(self._fernet.decrypt_at_time(cookie.encode(), SESSION_SECONDS, now_seconds))
            opened = kept, self._fernet.extract_timestamp(cookie.encode())
        except (InvalidToken, *UNREADABLE_ERRORS):
            return None
        if len(self._opened) >= _OPENED_MAX:
            self._opened = {}
        self._opened[cookie] = opened
        return opened

    def begin(self, token: str = "") -> tuple[Session, str]:
        """Return a new session and its cookie: of a token that is known, or of nobody yet."""
        form = secrets.token_urlsafe(_FORM_BYTES)
        kept = msgspec.json.encode(_Kept(token, form))
        cookie = self._fernet.encrypt_at_time(kept, self._clock.now_ms() // 1000).decode()
        header = f"Bearer {token}" if token else None
        return Session(form, header, self._authenticate(header) if header else None), cookie
