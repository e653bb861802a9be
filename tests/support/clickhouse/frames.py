"""Compressed frames of the native protocol: CityHash128 of what follows, method, two sizes, data.

The checksum is that of CityHash 1.0.2 over method, sizes and data, as ClickHouse's `CompressedReadBufferBase` has it. A
block may span several frames and ends with a frame's end.
"""

import struct

import lz4.block
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

from support.clickhouse.wire import Feed, ProtocolError

NONE, LZ4, ZSTD = 0x02, 0x82, 0x90
METHODS = {"NONE": NONE, "LZ4": LZ4, "ZSTD": ZSTD}
FRAME_BYTES = 1 << 20
COMPRESSED_BYTES_MAX = 1 << 30
_HASH = 16
_HEADER = struct.Struct("<BII")
_WORD = (1 << 64) - 1


def checksum(data: bytes) -> bytes:
    """Return the frame's checksum: the hash's low and high word, little-endian each."""
    value = CityHash128(data)
    return struct.pack("<QQ", value >> 64, value & _WORD)


def frames(data: bytes, method: int) -> bytes:
    """Return `data` in compressed frames of at most `FRAME_BYTES` each."""
    return b"".join(_frame(data[at : at + FRAME_BYTES], method) for at in range(0, len(data), FRAME_BYTES))


def _frame(data: bytes, method: int) -> bytes:
    if method == LZ4:
        packed: bytes = lz4.block.compress(data, store_size=False)
    elif method == ZSTD:
        packed = zstandard.compress(data)
    else:
        packed = data
    body = _HEADER.pack(method, len(packed) + _HEADER.size, len(data)) + packed
    return checksum(body) + body


def unframed(raw: Feed) -> bytes:
    """Return the data of the next frame.

    Raises:
        ProtocolError: checksum, method or sizes are wrong.
    """
    expected = raw.read(_HASH)
    header = raw.read(_HEADER.size)
    method, size, inflated = _HEADER.unpack(header)
    if not _HEADER.size <= size <= COMPRESSED_BYTES_MAX or inflated > COMPRESSED_BYTES_MAX:
        raise ProtocolError(f"a frame of {size} bytes for {inflated}: Too large size compressed")
    packed = raw.read(size - _HEADER.size)
    if checksum(header + packed) != expected:
        raise ProtocolError("Checksum doesn't match: corrupted data")
    if method == LZ4:
        data: bytes = lz4.block.decompress(packed, uncompressed_size=inflated)
    elif method == ZSTD:
        data = zstandard.decompress(packed, max_output_size=inflated)
    elif method == NONE:
        data = packed
    else:
        raise ProtocolError(f"Unknown compression method: {method}")
    if len(data) != inflated:
        raise ProtocolError(f"a frame says {inflated} bytes and holds {len(data)}")
    return data
