"""The one exception that reading a dump can end in, with a closed set of reasons.

Callers show the message to a person and count the reason; no other exception of the parser's own making leaves it.
"""

from typing import Literal

DumpReason = Literal["not_a_dump", "foreign_dump_type", "truncated", "corrupt", "too_large"]


class DumpError(Exception):
    """A file could not be read as a triage dump; the message says what it is and what to do next."""

    def __init__(self, reason: DumpReason, message: str) -> None:
        super().__init__(message)
        self.reason: DumpReason = reason
