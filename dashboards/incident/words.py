"""How times, counts and other people's texts are written in the report.

Invariant: a text that came from a device, a vendor or a pager can change nothing but itself: what does not print, or
would turn the direction of what follows, is shown as its code, and nothing is longer than it may be. HTML is escaped
by the template, which passes every text through `plain`.
"""

import datetime as dt
import unicodedata
from typing import Final

TEXT_MAX: Final = 600
# Control, format (direction marks among them), private, unassigned, and the two separators that break a line.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def plain(text: str, most: int = TEXT_MAX) -> str:
    r"""Return a text that shows all that is in it.

    Example:
        >>> plain("a\u202eb\n")
        'a\\u202eb\\x0a'
    """
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(_shown(one) if unicodedata.category(one) in _HIDDEN else one for one in cut)


def _shown(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def moment(at_ms: int | None, *, day: bool = True) -> str:
    """Return a moment to the second, UTC; a dash where there is none."""
    if not at_ms:
        return "-"
    return _utc(at_ms).strftime("%Y-%m-%d %H:%M:%S" if day else "%H:%M:%S")


def clock(at_ms: float, *, seconds: bool) -> str:
    """Return a time of day for an axis."""
    return _utc(at_ms).strftime("%H:%M:%S" if seconds else "%H:%M")


def _utc(at_ms: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)


def span(milliseconds: int) -> str:
    """Return how long something took, in the unit that says it best.

    Example:
        >>> span(114_000), span(962_000), span(9_000_000)
        ('114 s', '16 min 2 s', '2 h 30 min')
    """
    seconds = round(milliseconds / 1000)
    if seconds < 180:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 72 else f"{hours // 24} d {hours % 24} h"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "device"), count(1200, "crash", "crashes")
        ('1 device', '1,200 crashes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def power(log10: float) -> str:
    """Return a power of ten as the sentences of verdicts have it.

    Example:
        >>> power(6.34), power(-0.04)
        ('10^6.3', '10^0.0')
    """
    return f"10^{round(log10, 1) + 0.0:.1f}"


def rough(number: float) -> str:
    """Return a number to three digits.

    Example:
        >>> rough(192989.9), rough(28.52), rough(0.0034)
        ('193,000', '28.5', '0.0034')
    """
    if number >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:.3g}"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{share:.1%}"
