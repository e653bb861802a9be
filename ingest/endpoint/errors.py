"""The one exception that reading a dump can end in, with a closed set of reasons.

Callers show the message to a person and count the reason; no other exception of the parser's own making leaves it.
"""

from typing import Literal

DumpReason = Literal["not_a_dump", "foreign_dump_type", "truncated", "corrupt", "too_large"]

DUMP_REASON_DOCS: dict[DumpReason, str] = {
    "not_a_dump": "The file is something else: text, an archive, a program, an empty file.",
    "foreign_dump_type": "A dump, but of a program, of 32-bit Windows, or a full, kernel or bitmap one.",
    "truncated": "The file ends too early, or Windows did not finish it. Copy it again.",
    "corrupt": "An offset or a length in it leads out of it. Report from the event log instead.",
    "too_large": "Larger, or with more drivers, than a triage dump may be. Check that it is the one Windows wrote.",
}


class DumpError(Exception):
    """A file could not be read as a triage dump; the message says what it is and what to do next."""

    def __init__(self, reason: DumpReason, message: str) -> None:
        super().__init__(message)
        self.reason: DumpReason = reason
