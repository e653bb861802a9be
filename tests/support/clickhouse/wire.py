"""Bytes of ClickHouse's native protocol: numbers, strings, and a buffer that asks for more when it runs short.

Used by every other file of the test server. Written from the protocol (ClickHouse's `TCPHandler`, `ProtocolDefines.h`
and `NativeReader`), not from what one client happens to send.
"""

import struct
from collections.abc import Callable

# The revision this server speaks: everything up to server-side query parameters and time-zone updates, nothing of the
# later ones (chunked packets, parallel replicas' versions). Both sides use the smaller of their two revisions.
REVISION = 54468
REVISION_MIN = 54429

WITH_DISTRIBUTED_DEPTH = 54448
WITH_INITIAL_QUERY_START_TIME = 54449
WITH_INCREMENTAL_PROFILE_EVENTS = 54451
WITH_INTERSERVER_SECRET = 54441
WITH_OPENTELEMETRY = 54442
WITH_PARALLEL_REPLICAS = 54453
WITH_CUSTOM_SERIALIZATION = 54454
WITH_PROFILE_EVENTS_IN_INSERT = 54456
WITH_ADDENDUM = 54458
WITH_PARAMETERS = 54459
WITH_QUERY_TIME_IN_PROGRESS = 54460
WITH_PASSWORD_COMPLEXITY_RULES = 54461
WITH_INTERSERVER_SECRET_V2 = 54462
WITH_TOTAL_BYTES_IN_PROGRESS = 54463

# Packets of the client.
HELLO, QUERY, DATA, CANCEL, PING, TABLES_STATUS_REQUEST = range(6)
SCALAR = 7
# Packets of the server, named apart where their numbers differ.
S_HELLO, S_DATA, S_EXCEPTION, S_PROGRESS, S_PONG, S_END_OF_STREAM, S_PROFILE_INFO = range(7)
S_TABLES_STATUS_RESPONSE = 9
S_TABLE_COLUMNS = 11
S_PROFILE_EVENTS = 14

STRING_BYTES_MAX = 64 << 20


class ProtocolError(Exception):
    """The client sent what the protocol does not allow; the connection cannot go on."""


class Feed:
    """Bytes as they come in: read from the front, pulled from behind when they run short."""

    def __init__(self, pull: Callable[[], bytes]) -> None:
        """Take a source that returns at least one byte or raises `EOFError`."""
        self._pull = pull
        self.buffer = bytearray()
        self.position = 0

    def require(self, count: int) -> None:
        """Make sure that `count` bytes from the position on are in the buffer."""
        while len(self.buffer) - self.position < count:
            self.buffer += self._pull()

    def forget(self) -> None:
        """Drop what was read."""
        del self.buffer[: self.position]
        self.position = 0

    def available(self) -> int:
        """Return how many bytes are here and unread."""
        return len(self.buffer) - self.position

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        self.require(count)
        self.position += count

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        self.require(count)
        taken = bytes(self.buffer[self.position : self.position + count])
        self.position += count
        return taken

    def unsigned(self, width: int) -> int:
        """Return a little-endian unsigned number of `width` bytes."""
        return int.from_bytes(self.read(width), "little")

    def varint(self) -> int:
        """Return a variable-length unsigned number."""
        value = shift = 0
        while True:
            byte = self.unsigned(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ProtocolError("a variable-length number has more than 64 bits")

    def text(self) -> str:
        """Return a string with its length in front."""
        length = self.varint()
        if length > STRING_BYTES_MAX:
            raise ProtocolError(f"a string of {length} bytes, {STRING_BYTES_MAX} are allowed")
        return self.read(length).decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int) -> None:
        """Pass over `count` strings; the loop that a block of text spends its time in."""
        buffer, position, size = self.buffer, self.position, len(self.buffer)
        for _ in range(count):
            if size - position < 10:
                # A length may be cut off here; the slow way asks for what is missing.
                self.position = position
                self.skip(self.varint())
                position, size = self.position, len(buffer)
                continue
            length = buffer[position]
            position += 1
            if length >= 0x80:
                self.position = position - 1
                length = self.varint()
                position = self.position
            position += length
            if position > size:
                self.position = position - length
                self.require(length)
                size = len(buffer)
        self.position = position


def varint(value: int) -> bytes:
    """Return a variable-length unsigned number."""
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """Return a string with its length in front."""
    raw = value.encode("utf-8", "surrogateescape")
    return varint(len(raw)) + raw


def int32(value: int) -> bytes:
    """Return a signed number of four bytes."""
    return struct.pack("<i", value)


def uint64(value: int) -> bytes:
    """Return an unsigned number of eight bytes."""
    return struct.pack("<Q", value)
