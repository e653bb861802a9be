"""Frames to a crash signature: bug checks and module names normalised, a module blamed, several grains named.

Pure and without state; used by the endpoint's dump reader and by grouping. See README.md for the rules and their lists.
"""

from ingest.signature.blame import Blame, Evidence, Frame, FrameLike, blame_of, is_third_party
from ingest.signature.normalise import MODULE_CHARS_MAX, bugcheck_facts, normalise_bugcheck, normalise_module
from ingest.signature.signature import (
    DELIBERATE,
    FRAME_CHARS_MAX,
    FRAMES_HASHED_MAX,
    GRAINS,
    UNKNOWN,
    Grain,
    Signature,
    signature_of,
    telling_frames,
)

__all__ = [
    "DELIBERATE",
    "FRAMES_HASHED_MAX",
    "FRAME_CHARS_MAX",
    "GRAINS",
    "MODULE_CHARS_MAX",
    "UNKNOWN",
    "Blame",
    "Evidence",
    "Frame",
    "FrameLike",
    "Grain",
    "Signature",
    "blame_of",
    "bugcheck_facts",
    "is_third_party",
    "normalise_bugcheck",
    "normalise_module",
    "signature_of",
    "telling_frames",
]
