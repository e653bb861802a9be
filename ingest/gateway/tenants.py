"""Who posts: tokens, the tenants they speak for, and what they may do.

Tokens are 256 random bits and only their SHA-256 is stored, in `tokens.toml`; a slow hash would add nothing to what
cannot be guessed. The file may be edited while the gateway runs and is read again when it changes; a broken one leaves
the tokens as they were. The invariant: a token that is not in the file authenticates nobody.
"""

import enum
import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANY_TENANT = "*"
TOKENS_MAX = 10_000
_CACHED_MAX = 10_000
_HEADER_CHARACTERS_MAX = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VENDOR = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Role(enum.StrEnum):
    """What a token may do."""

    REPORT = "report"  # post reports
    ROLLOUT = "rollout"  # declare rollouts
    VIEWER = "viewer"  # read verdicts, events and trails
    OPERATOR = "operator"  # hold, kill, ask for a release
    APPROVER = "approver"  # give the second word that a release of a kill needs
    DRIVE = "drive"  # drive the clock of a lane that is not live
    VENDOR = "vendor"  # read what a vendor may see of its own updates, and nothing else


class TokenBookError(Exception):
    """The token file cannot be used; the message says where it is wrong."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for.

    Attributes:
        name: the token's name, for logs and trails.
        tenants: tenants it may speak for; `*` is every tenant.
        tenant: the only tenant, filled into reports that name none; empty for a collector.
        vendors: whose view a vendor's token gives, by the registry's names; empty for every other token.
    """

    name: str
    tenants: frozenset[str]
    roles: frozenset[Role]
    vendors: frozenset[str] = frozenset()
    tenant: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Derive the tenant that reports without one belong to."""
        if len(self.tenants) == 1 and ANY_TENANT not in self.tenants:
            object.__setattr__(self, "tenant", next(iter(self.tenants)))

    def speaks_for(self, tenant: str) -> bool:
        """Tell whether a report with this `tenant` (empty: not named) may come from this principal."""
        if not tenant:
            return bool(self.tenant)
        return tenant in self.tenants or (ANY_TENANT in self.tenants and _NAME.fullmatch(tenant) is not None)


class TokenBook:
    """The installation's tokens."""

    def __init__(self, path: Path, principals: Mapping[str, Principal]) -> None:
        """Use `load` instead: it reads the file."""
        self._path = path
        self._by_digest = _keyed(principals)
        self._cache: dict[str, Principal] = {}
        self._read_as = _stamp(path)

    @classmethod
    def load(cls, path: Path) -> "TokenBook":
        """Read the tokens of `path`; a file that does not exist holds none.

        Raises:
            TokenBookError: the file is not as `add` writes it.
        """
        return cls(path, _read(path))

    def add(self, name: str, tenants: Iterable[str], roles: Iterable[str], vendors: Iterable[str] = ()) -> str:
        """Make a token, store its hash, and return the token: it is shown once and kept nowhere.

        Args:
            name: the token's own name.
            tenants: whom it speaks for: one tenant, several (a collector), or `*` for all.
            roles: words of `Role`.
            vendors: whose view it gives; of a token with the role `vendor`, which has no tenant and no other role.

        Raises:
            TokenBookError: a name is taken or malformed, or the book is full.
        """
        self.reload_if_changed()
        principal = _principal(name, list(tenants), list(roles), list(vendors))
        if any(known.name == name for _, known in self._by_digest.values()):
            raise TokenBookError(f"token {name!r} exists already: choose another name or remove it from {self._path}")
        if len(self._by_digest) >= TOKENS_MAX:
            raise TokenBookError(f"{self._path} holds {TOKENS_MAX} tokens: remove those no longer used")
        token = "cordon_" + secrets.token_urlsafe(32)
        self._by_digest[_digest(token)] = (_digest(token), principal)
        self._write()
        return token

    def authenticate(self, header: str | None) -> Principal | None:
        """Return who sent this `Authorization` header, or None. Known headers cost a dictionary look-up."""
        if header is None:
            return None
        return self._cache.get(header) or self._look_up(header)

    def _look_up(self, header: str) -> Principal | None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or len(header) > _HEADER_CHARACTERS_MAX:
            return None
        presented = _digest(token.strip())
        # The look-up goes by a hash the sender cannot steer, so its timing tells nothing of the tokens kept.
        entry = self._by_digest.get(presented)
        found = entry[1] if entry is not None and hmac.compare_digest(entry[0], presented) else None
        if found is not None:
            if len(self._cache) >= _CACHED_MAX:
                self._cache.clear()
            self._cache[header] = found
        return found

    def reload_if_changed(self) -> bool:
        """Read the file again if it was changed; return whether it was.

        Raises:
            TokenBookError: the changed file is broken; the tokens stay as they were.
        """
        stamp = _stamp(self._path)
        if stamp == self._read_as:
            return False
        self._read_as = stamp
        self._by_digest = _keyed(_read(self._path))
        self._cache.clear()
        return True

    def _write(self) -> None:
        lines = ["# Cordon's tokens: only their SHA-256 is kept. Delete a table to revoke its token.\n"]
        for digest, principal in self._by_digest.values():
            lines.append(
                f"\n[tokens.{json.dumps(principal.name)}]\n"
                f'sha256 = "{digest}"\n'
                f"tenants = {json.dumps(sorted(principal.tenants))}\n"
                f"roles = {json.dumps(sorted(principal.roles))}\n"
            )
            if principal.vendors:
                lines.append(f"vendors = {json.dumps(sorted(principal.vendors))}\n")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(self._path.name + ".new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._read_as = _stamp(self._path)
        self._cache.clear()


def _keyed(principals: Mapping[str, Principal]) -> dict[str, tuple[str, Principal]]:
    return {digest: (digest, principal) for digest, principal in principals.items()}


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _read(path: Path) -> dict[str, Principal]:
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TokenBookError(f"cannot read {path}: {error}") from error
    tables = document.get("tokens", {})
    if set(document) - {"tokens"} or not isinstance(tables, dict) or len(tables) > TOKENS_MAX:
        raise TokenBookError(f"{path} may hold [tokens.NAME] tables only, at most {TOKENS_MAX}")
    book: dict[str, Principal] = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or set(table) - {"vendors"} != {"sha256", "tenants", "roles"}:
            raise TokenBookError(
                f"{path}, token {name!r}: needs sha256, tenants and roles, of a vendor vendors, and nothing else"
            )
        digest = table["sha256"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest) or digest in book:
            raise TokenBookError(f"{path}, token {name!r}: sha256 must be 64 hexadecimal digits of its own")
        book[digest] = _principal(name, table["tenants"], table["roles"], table.get("vendors", []))
    return book


def _principal(name: str, tenants: Any, roles: Any, vendors: Any) -> Principal:
    if not _NAME.fullmatch(name):
        raise TokenBookError(f"token name {name!r}: use letters, digits, '.', '_' and '-', 64 at most")
    known = [str(role) for role in Role]
    if not isinstance(roles, list) or not roles or any(role not in known for role in roles):
        raise TokenBookError(f"token {name!r}: roles must be among {', '.join(known)}")
    if not isinstance(tenants, list) or not isinstance(vendors, list):
        raise TokenBookError(f"token {name!r}: tenants and vendors are lists")
    if Role.VENDOR in roles or vendors:
        return _vendor(name, tenants, roles, vendors)
    if not tenants:
        raise TokenBookError(f"token {name!r} speaks for no tenant: name one, several, or '*'")
    for tenant in tenants:
        if not isinstance(tenant, str) or (tenant != ANY_TENANT and not _NAME.fullmatch(tenant)):
            raise TokenBookError(f"token {name!r}: tenant {tenant!r} is not letters, digits, '.', '_' and '-'")
    return Principal(name, frozenset(tenants), frozenset(map(Role, roles)))


def _vendor(name: str, tenants: list[Any], roles: list[str], vendors: list[Any]) -> Principal:
    """Return a vendor's principal: one that may do anything else could reach other vendors' data that way."""
    if roles != [Role.VENDOR] or tenants or not vendors:
        raise TokenBookError(
            f"token {name!r}: a vendor's token names its vendors, speaks for no tenant and has no role but `vendor`"
        )
    for vendor in vendors:
        if not isinstance(vendor, str) or not _VENDOR.fullmatch(vendor):
            raise TokenBookError(
                f"token {name!r}: vendor {vendor!r} is no registry's name: small letters, digits, '.', '_' and '-'"
            )
    return Principal(name, frozenset(), frozenset({Role.VENDOR}), frozenset(vendors))
