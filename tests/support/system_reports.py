"""Reports as a foreign agent would write them: plain dictionaries by the documented wire format."""

import itertools
import time
from typing import Any

TENANTS = ("acme", "bravo", "cargo", "delta")
DAY_MS = 86_400_000

# One sequence for all devices: a number names one report, whoever looks for it later.
_numbers = itertools.count(int(time.time()) << 20)


def now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def base(kind: str, device: int, **fields: Any) -> dict[str, Any]:
    """Return the fields that every report carries, of a device whose number decides its circumstances."""
    known: dict[str, Any] = {
        "kind": kind,
        "device": f"host-{device}",
        "seq": next(_numbers),
        "at_ms": now_ms(),
        "boot_id": "boot-1",
        "boot_at_ms": now_ms() - 3 * DAY_MS,
        "os_build": "22631.3880",
        "form_factor": "laptop",
        "ring": "broad",
        "tenant": TENANTS[device % len(TENANTS)],
    }
    return known | fields


def check_in(device: int, versions: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a check-in."""
    return base("check_in", device, versions=versions or {}, **fields)


def update(kind: str, device: int, product: str, version: str, **fields: Any) -> dict[str, Any]:
    """Return an `offered` or `installed` of a driver of vendor contoso."""
    named = {"vendor": "contoso", "product": product, "update_kind": "driver", "version": version}
    return base(kind, device, **named, **fields)


def bsod(device: int, module: str = "sensor.sys", **fields: Any) -> dict[str, Any]:
    """Return a crash."""
    return base("bsod", device, bugcheck=0x50, module=module, **fields)


def declaration(product: str, version: str, **fields: Any) -> dict[str, Any]:
    """Return a rollout's declaration."""
    return {"vendor": "contoso", "product": product, "update_kind": "driver", "version": version, **fields}
