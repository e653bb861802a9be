"""The one place where webhooks touch the network: posts an event, and says in a closed word what came of it.

aiohttp does the HTTP. Invariants: a connection is only ever opened to an address that the policy has just allowed, for
the check stands in the function that makes the socket; redirects, proxies and cookies are not followed, used or kept;
of an answer at most some kilobytes are read; every post ends within its time.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ingest.clock import Clock
from signals.delivery.webhooks.lane import DETAIL_CHARACTERS_MAX, Result
from signals.delivery.webhooks.targets import TargetError, TargetPolicy
from signals.delivery.webhooks.words import AttemptWord

ANSWER_BYTES_MAX = 4096
KEEPALIVE_SECONDS = 60.0
LOOKUPS_MAX = 32
URLS_CACHED_MAX = 8192
_TRY_AGAIN = frozenset({408, 425})

# Host and port to addresses, as text; runs in the loop.
Lookup = Callable[[str, int], Awaitable[list[str]]]


class Poster(Protocol):
    """Posts one body; `WebhookSender` is the real one."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Result:
        """Post and return how it ended; raises nothing."""
        ...


async def system_lookup(host: str, port: int) -> list[str]:
    """Return every address of a name, as the system resolves it.

    Raises:
        OSError: the name can't be resolved.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _CheckedResolver(AbstractResolver):
    """Checks every address of a name before any is connected to."""

    def __init__(self, lookup: Lookup, policy: TargetPolicy, *, tls: bool) -> None:
        self._lookup, self._policy, self._tls = lookup, policy, tls
        self._turn = asyncio.Semaphore(LOOKUPS_MAX)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # the interface's
    ) -> list[ResolveResult]:
        async with self._turn:
            addresses = await self._lookup(host, port)
        self._policy.check_addresses(host, addresses, tls=self._tls)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


class WebhookSender:
    """Posts to any subscriber; made and used inside one running loop."""

    def __init__(
        self, policy: TargetPolicy, clock: Clock, timeout_seconds: float, lookup: Lookup = system_lookup
    ) -> None:
        """Prepare; connections are opened as they are needed and kept for a minute.

        Args:
            policy: where webhooks may go.
            clock: reads a Retry-After that is a date.
            timeout_seconds: how long a post may take, from its start to the answer's end.
            lookup: resolves names.
        """
        self._policy, self._clock = policy, clock
        self._target = lru_cache(URLS_CACHED_MAX)(self._parse)
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        # One session for https and one for http: which addresses are allowed depends on it.
        self._sessions = {
            scheme: aiohttp.ClientSession(
                connector=self._connector(lookup, tls=scheme == "https"),
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding",),
            )
            for scheme in ("https", "http")
        }

    async def __aenter__(self) -> "WebhookSender":
        """Return the sender."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Result:
        """Post and return how it ended; raises nothing but cancellation."""
        try:
            target = self._target(url)
            async with self._sessions[target.scheme].post(
                target, data=body, headers=headers, allow_redirects=False
            ) as answer:
                read = await answer.content.read(ANSWER_BYTES_MAX)
                if not answer.content.at_eof():
                    # A long answer is not read to its end: its connection is of no more use.
                    answer.close()
                return self._result(answer.status, answer.headers.get("Retry-After", ""), read)
        except TargetError as error:
            return Result(AttemptWord.REFUSED_TARGET, str(error))
        except TimeoutError:
            return Result(AttemptWord.TIMED_OUT, "no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = _target_error(error)
            if refused is not None:
                return Result(AttemptWord.REFUSED_TARGET, str(refused))
            return Result(AttemptWord.UNREACHABLE, f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS_MAX])

    def _parse(self, url: str) -> URL:
        self._policy.check_url(url)
        return URL(url, encoded=True)

    def _connector(self, lookup: Lookup, *, tls: bool) -> aiohttp.TCPConnector:
        def checked_socket(info: Any) -> socket.socket:
            family, kind, protocol, _, address = info
            self._policy.check_address(str(address[0]), str(address[0]), tls=tls)
            opened = socket.socket(family, kind, protocol)
            opened.setblocking(False)
            return opened

        return aiohttp.TCPConnector(
            resolver=_CheckedResolver(lookup, self._policy, tls=tls),
            socket_factory=checked_socket,
            use_dns_cache=False,
            # Each subscription has at most four posts under way, and there are at most `webhook_subscriptions_max`.
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )

    def _result(self, status: int, retry_after: str, body: bytes) -> Result:
        detail = f"{status} {body[:100].decode(errors='replace')!r}" if body else str(status)
        if 200 <= status < 300:
            return Result(AttemptWord.DELIVERED, str(status))
        if status == 410:
            return Result(AttemptWord.GONE, detail)
        asked_ms = _retry_after_ms(retry_after, self._clock.now_ms())
        if status == 429 or (status == 503 and asked_ms):
            return Result(AttemptWord.BUSY, detail, asked_ms)
        if status >= 500 or status in _TRY_AGAIN:
            return Result(AttemptWord.FAILED, detail)
        return Result(AttemptWord.REJECTED, detail)


def _retry_after_ms(text: str, now_ms: int) -> int:
    """Return how long a receiver asks to be left alone: seconds, or until a date; 0 for what can't be read."""
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp() * 1000) - now_ms)
    except (ValueError, TypeError, OverflowError):
        return 0


def _target_error(error: BaseException | None) -> TargetError | None:
    """Return the refusal that lies behind an error of the library."""
    for _ in range(8):
        if error is None or isinstance(error, TargetError):
            return error
        if isinstance(error, BaseExceptionGroup):
            return next((found for one in error.exceptions if (found := _target_error(one)) is not None), None)
        error = error.__cause__ or error.__context__
    return None
