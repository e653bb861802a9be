"""Bounds-checked reading of a dump, whatever it comes from: the only place that touches the bytes.

Invariant: no read leaves the file or the size the dump declares for itself, and none is longer than its caller's bound,
so memory follows what is asked for and never what a header claims.
"""

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from ingest.endpoint.errors import DumpError

COPY_AGAIN: Final = "copy the file again from C:\\Windows\\Minidump once the machine is up"
DAMAGED: Final = "the file is damaged or was made up; report the crash from the event log instead"

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


class DumpSource:
    """A seekable file with a size, read by absolute offset.

    Attributes:
        size_bytes: the file's size; reads beyond it raise ``truncated``.
        end_bytes: where the dump says it ends, once `limit_to` was told; reads beyond that raise ``corrupt``.
    """

    def __init__(self, stream: BinaryIO) -> None:
        if not stream.seekable():
            raise DumpError("not_a_dump", "a dump is read back and forth: save the stream to a file and name that")
        self._stream = stream
        self.size_bytes = stream.seek(0, SEEK_END)
        self.end_bytes = self.size_bytes
        self._limited = False

    def limit_to(self, end_bytes: int) -> None:
        """Take the dump's own word for where it ends, if the file is that long.

        Raises:
            DumpError: ``truncated``, the file ends earlier.
        """
        if end_bytes > self.size_bytes:
            raise DumpError(
                "truncated", f"the dump has {self.size_bytes} bytes of the {end_bytes} it declares: {COPY_AGAIN}"
            )
        self.end_bytes = end_bytes
        self._limited = True

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly ``length`` bytes at ``offset``; ``what`` names them in the error.

        Raises:
            DumpError: ``corrupt`` or ``truncated``, they are not all there.
        """
        if offset < 0 or length < 0 or offset + length > self.end_bytes:
            if not self._limited:
                raise DumpError("truncated", f"the file ends before the {what}: {COPY_AGAIN}")
            raise DumpError("corrupt", f"the {what} lies outside the dump ({offset:#x} + {length:#x}): {DAMAGED}")
        self._stream.seek(offset)
        parts: list[bytes] = []
        missing = length
        while missing:
            part = self._stream.read(missing)
            if not part:
                raise DumpError("truncated", f"the file shrank while the {what} was read: {COPY_AGAIN}")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def u32(self, offset: int, what: str) -> int:
        """Return the little-endian 32-bit number at ``offset``."""
        return int(_U32.unpack(self.read(offset, _U32.size, what))[0])

    def u64(self, offset: int, what: str) -> int:
        """Return the little-endian 64-bit number at ``offset``."""
        return int(_U64.unpack(self.read(offset, _U64.size, what))[0])


@contextmanager
def open_source(source: BinaryIO | bytes | Path) -> Iterator[DumpSource]:
    """Open bytes, a path or a seekable binary stream for reading; what it opened it closes.

    Raises:
        DumpError: ``not_a_dump``, a path that is not a regular file (a pipe would block), or a stream without seeking.
        OSError: the file cannot be opened.
    """
    if isinstance(source, bytes):
        yield DumpSource(BytesIO(source))
    elif isinstance(source, Path):
        if not stat.S_ISREG(source.stat().st_mode):
            raise DumpError("not_a_dump", f"{source} is not a file: name a .dmp file of C:\\Windows\\Minidump")
        with source.open("rb") as stream:
            yield DumpSource(stream)
    else:
        yield DumpSource(source)
