"""The policy: what evidence is enough for which decision, read from a documented TOML file.

`policy.toml` beside this file is the built-in policy and the documentation of every name. Unknown names and values out
of range are refused with the name in the message; `for_product` gives the policy with a product's overrides applied.
"""

import hashlib
import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

_Alpha = Annotated[float, Meta(gt=0, le=1)]
_PRODUCTS: Final = "products"


# Budgets are the installation's: a product can't have one of its own.
_INSTALLATION = frozenset({"false_kills_per_year", "tenant_false_kills_per_year"})


class PolicyError(Exception):
    """The policy file cannot be used; the message names the entry and says what it may be."""


class Weights(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Each method's weight in the mean of e-values."""

    rate_ratio: Annotated[float, Meta(ge=0, le=1)]
    new_signature: Annotated[float, Meta(ge=0, le=1)]
    silence: Annotated[float, Meta(ge=0, le=1)]
    baseline: Annotated[float, Meta(ge=0, le=1)]


class SilencePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When a stratum of silent devices is frozen."""

    control_share_limit: Annotated[float, Meta(gt=0, lt=1)]
    control_least: Annotated[int, Meta(ge=1)]


class GatePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a rollout's next ring waits for."""

    ratio: Annotated[float, Meta(gt=1, le=100)]
    excess_per_device_day: Annotated[float, Meta(gt=0, le=1000)]
    alpha: Annotated[float, Meta(gt=0, lt=1)]
    boots_least: Annotated[int, Meta(ge=0)]
    wakes_least: Annotated[int, Meta(ge=0)]
    latency_hours: Annotated[float, Meta(ge=0, le=24 * 365)]
    share_least: Annotated[float, Meta(ge=0, lt=1)]


class PlanningPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What rollout systems are advised to keep to before they push; nothing is decided by it."""

    loss_max: Annotated[int, Meta(ge=1)]
    crash_probability: Annotated[float, Meta(gt=0, le=1)]
    reported: Annotated[float, Meta(gt=0, le=1)]
    crash_seconds: Annotated[float, Meta(ge=0, le=86_400)]
    stop_seconds: Annotated[float, Meta(ge=0, le=86_400)]
    certainty: Annotated[float, Meta(gt=0, lt=0.999)]


class Policy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One product's policy; `policy.toml` documents the fields."""

    dry_run: bool
    alpha_kill: _Alpha
    alpha_hold: _Alpha
    alpha_watch: _Alpha
    false_kills_per_year: _Alpha
    tenant_false_kills_per_year: _Alpha
    tolerated_ratio: Annotated[float, Meta(ge=1, le=100)]
    hold_ratio: Annotated[float, Meta(ge=1, le=100)]
    share_least: Annotated[float, Meta(ge=0, lt=1)]
    devices_least: Annotated[int, Meta(ge=1)]
    tenants_least: Annotated[int, Meta(ge=1)]
    trusted_tenants: list[str]
    tenant_floor: Annotated[float, Meta(gt=0, lt=1)]
    proceed_exposed_least: Annotated[int, Meta(ge=1)]
    proceed_seconds: Annotated[float, Meta(ge=0)]
    gate: GatePolicy
    planning: PlanningPolicy
    weights: Weights
    silence: SilencePolicy
    activity_late_seconds: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        total = math.fsum(getattr(self.weights, name) for name in self.weights.__struct_fields__)
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"weights must sum to 1, not to {total:g}")
        if not self.alpha_kill <= self.alpha_hold <= self.alpha_watch:
            raise ValueError("alpha_kill <= alpha_hold <= alpha_watch must hold: a kill needs the most evidence")
        if self.hold_ratio > self.tolerated_ratio:
            raise ValueError("hold_ratio <= tolerated_ratio must hold: what may be killed for may be held for")

    @property
    def log10_to_kill(self) -> float:
        """Log10 of the evidence needed to kill."""
        return -math.log10(self.alpha_kill)

    @property
    def log10_to_hold(self) -> float:
        """Log10 of the evidence needed to hold."""
        return -math.log10(self.alpha_hold)

    @property
    def log10_to_watch(self) -> float:
        """Log10 of the evidence from which on it is called rising."""
        return -math.log10(self.alpha_watch)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of SHA-256 of the policy's canonical JSON: names it in verdicts."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


class Policies:
    """The policy of a file with its overrides per product."""

    def __init__(self, values: dict[str, Any], where: str = "the policy") -> None:
        """Check the default policy and every product's.

        Args:
            values: the parsed file, laid over the built-in policy.
            where: the file's name, for messages.

        Raises:
            PolicyError: an unknown name, a wrong type, or a value out of range.
        """
        overrides = values.get(_PRODUCTS, {})
        if not isinstance(overrides, dict) or not all(isinstance(one, dict) for one in overrides.values()):
            raise PolicyError(f'{where}: write [products."vendor/product"] tables under `products`')
        base = _lay(_built_in(), {name: value for name, value in values.items() if name != _PRODUCTS})
        self.default = _convert(base, where)
        self._products: dict[str, Policy] = {}
        for product, override in overrides.items():
            vendor, slash, name = product.partition("/")
            if not (vendor and slash and name):
                raise PolicyError(f'{where}: products."{product}" must be "vendor/product"')
            misplaced = sorted(_INSTALLATION & set(override))
            if misplaced:
                raise PolicyError(f'{where}: products."{product}": {misplaced[0]} is for all products together')
            self._products[product] = _convert(_lay(base, override), f'{where}, products."{product}"')

    def for_product(self, vendor: str, product: str) -> Policy:
        """Return the policy for rollouts of one product."""
        return self._products.get(f"{vendor}/{product}", self.default)

    def all(self) -> list[Policy]:
        """Return the default policy and every product's."""
        return [self.default, *self._products.values()]


def load(path: Path | None = None) -> Policies:
    """Read a policy file; without one, the built-in policy.

    Raises:
        PolicyError: the file cannot be read, or holds what a policy may not.
    """
    if path is None:
        return Policies({})
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"cannot read the policy {path}: {error}") from error
    return Policies(values, str(path))


def _built_in() -> dict[str, Any]:
    return tomllib.loads(resources.files("detectors").joinpath("policy.toml").read_text(encoding="utf-8"))


def _lay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    laid = dict(base)
    for name, value in over.items():
        below = laid.get(name)
        laid[name] = _lay(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return laid


def _convert(values: dict[str, Any], where: str) -> Policy:
    try:
        return msgspec.convert(values, Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{where}: {error}; detectors/policy.toml documents every name") from error
