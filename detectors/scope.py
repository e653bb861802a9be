"""A part of a rollout that is decided on by itself: one ring, one OS build, one model, one tenant.

A word shared by verdicts, commands and kill-switch events. The invariant: what is not known of a target never takes it
out of a scope. A rollout system that does not say which OS build it pushes to has to obey a stop of one build.
"""

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ingest.tenancy import tenant_hash

# What may stand in a scope: no separators of its text form, no control characters.
_VALUE: Final = re.compile(r"[^;=\x00-\x1f\x7f]{1,64}")
_Value = Annotated[str, Meta(max_length=64)]
HASHED: Final = "#"


class ScopeError(ValueError):
    """A text is no scope; the message says what to write."""


class Scope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which part of a rollout is meant; without any field, the whole.

    Attributes:
        ring: eligibility for a ring, by its name.
        os_build: an OS build as devices report it, such as `22631.3880`, or its family, `22631`.
        model: a device model.
        tenant: a tenant's name, or `#` and its hash in hexadecimal where only that is known.
    """

    ring: _Value = ""
    os_build: _Value = ""
    model: _Value = ""
    tenant: _Value = ""

    def __post_init__(self) -> None:
        """Refuse values that the text form could not carry."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value and not _VALUE.fullmatch(value):
                raise ScopeError(
                    f"{name} {value[:64]!r}: at most 64 characters, without ';', '=' and control characters"
                )

    @property
    def whole(self) -> bool:
        """Whether the whole rollout is meant."""
        return self == WHOLE

    @property
    def text(self) -> str:
        """The scope as people write it, `ring=canary;os_build=22631`; empty for the whole rollout."""
        return ";".join(f"{name}={value}" for name in self.__struct_fields__ if (value := getattr(self, name)))

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """Return the scope that `text` names; an empty text is the whole rollout.

        Raises:
            ScopeError: a name is not one of the fields, or comes twice, or has no value.
        """
        values: dict[str, str] = {}
        for part in text.split(";") if text else []:
            name, equals, value = part.partition("=")
            if not equals or not value or name not in cls.__struct_fields__ or name in values:
                raise ScopeError(
                    f"scope {text[:128]!r}: write ring=NAME;os_build=BUILD;model=MODEL;tenant=TENANT, each at most once"
                )
            values[name] = value
        return cls(**values)

    def covers(self, target: "Scope") -> bool:
        """Tell whether a stop of this scope binds `target`, of which an empty field says that it is not known."""
        return (
            _alike(self.ring, target.ring)
            and _alike(self.model, target.model)
            and _build_alike(self.os_build, target.os_build)
            and _tenant_alike(self.tenant, target.tenant)
        )


WHOLE: Final = Scope()


def hashed_tenant(number: int) -> str:
    """Return how a scope names a tenant of which only the hash is known."""
    return f"{HASHED}{number:x}"


def _alike(mine: str, theirs: str) -> bool:
    return not mine or not theirs or mine == theirs


def _build_alike(mine: str, theirs: str) -> bool:
    # A family covers its builds, and a target that only tells its family may be on the build.
    return _alike(mine, theirs) or mine.startswith(f"{theirs}.") or theirs.startswith(f"{mine}.")


def _tenant_alike(mine: str, theirs: str) -> bool:
    if _alike(mine, theirs):
        return True
    hashes = [name if name.startswith(HASHED) else hashed_tenant(tenant_hash(name)) for name in (mine, theirs)]
    return hashes[0] == hashes[1]
