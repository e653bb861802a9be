"""How things stand with the telemetry as a whole when a verdict is asked for: what every rollout's findings rest on."""

import msgspec


class Situation(msgspec.Struct, kw_only=True, frozen=True):
    """What is heard of, and how late."""

    at_ms: int
    blind: bool = False
    late_seconds: float = 0.0
    late_limit_seconds: float = 30.0
    left_out: tuple[int, ...] = ()
    unsure: tuple[str, ...] = ()
