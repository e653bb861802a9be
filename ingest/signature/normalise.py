"""One spelling for each bug check code and each module name, before any rule looks at them.

Both come from machines that nobody vouches for. Invariant: what leaves here is bounded in length, printable, holds no
character that a Windows file name may not hold (so ``|``, ``<`` and ``>`` are free for the signature's own use), and
normalising it again changes nothing.
"""

import re
from typing import Final

from ingest.signature.lists import BUGCHECKS, MODULE_ALIASES, BugcheckFacts

MODULE_CHARS_MAX: Final = 128
MODULE_PATH_CHARS_MAX: Final = 1024

_NTSTATUS_SEVERITY_ERROR: Final = 0xC000_0000
_CODE_MASK: Final = 0x0FFF_FFFF
_U32_MASK: Final = 0xFFFF_FFFF
_PLAIN: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.\-]{0,126}[a-z0-9_\-])?")
_NOT_IN_FILE_NAMES: Final = frozenset('<>:"/\\|?*')
_NO_FACTS: Final = BugcheckFacts(name="")


def normalise_bugcheck(code: int) -> int:
    """Return the bug check code as Microsoft's reference lists it, in 32 bits.

    Windows marks some codes in their top four bits when it writes a small dump (0x1000007E is 0x7E): these bits are
    cleared. Codes from 0xC0000000 on are whole values (0xC000021A, a dead system process; 0xDEADDEAD) and stay.
    """
    code &= _U32_MASK
    return code if code >= _NTSTATUS_SEVERITY_ERROR else code & _CODE_MASK


def bugcheck_facts(code: int) -> BugcheckFacts:
    """Return what is known of a normalised code; empty facts for one that is not listed."""
    return BUGCHECKS.get(code, _NO_FACTS)


def normalise_module(name: str) -> str:
    """Return a module's bare name in lower case, or an empty string if the name is not usable.

    Paths of either slash are stripped. Refused: nothing left, more than 128 characters (1,024 with the path), and
    characters that are not printable (control characters, direction overrides, lone surrogates) or not allowed in file
    names.
    """
    if _PLAIN.fullmatch(name):
        return MODULE_ALIASES.get(name, name)
    if len(name) > MODULE_PATH_CHARS_MAX:
        return ""
    bare = name.replace("/", "\\").rsplit("\\", 1)[-1].strip().rstrip(". ").lower()
    if len(bare) > MODULE_CHARS_MAX or not bare.isprintable() or not _NOT_IN_FILE_NAMES.isdisjoint(bare):
        return ""
    return MODULE_ALIASES.get(bare, bare)
