"""How a value is stored: as it is, or zstd-1 compressed when that makes it smaller.

Callers hand over and get plain bytes. Compression runs in the caller's thread and releases the interpreter lock, so
several appending threads compress side by side before they meet at the one writer.
"""

import threading

import zstandard

from ingest.log.interface import LogError

RAW = 0
ZSTD = 1
# Below this, the frame's own bytes and the call cost more than the disk they save (ticks are 60 bytes).
COMPRESS_FROM_BYTES = 512
VALUE_BYTES_MAX = 64 << 20
_LEVEL = 1


class Codec:
    """Compresses and decompresses; one zstd context for each thread, for those are not thread-safe."""

    def __init__(self) -> None:
        """Start with no contexts; each thread makes its own at first use."""
        self._local = threading.local()

    def encode(self, value: bytes | None) -> tuple[int, bytes | None]:
        """Return the codec's number and the bytes to store.

        Raises:
            LogError: the value is larger than `VALUE_BYTES_MAX`.
        """
        if value is None or len(value) <= COMPRESS_FROM_BYTES:
            return RAW, value
        if len(value) > VALUE_BYTES_MAX:
            raise LogError(f"a value of {len(value)} bytes: split it, a record holds {VALUE_BYTES_MAX} at most")
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        stored: bytes = compressor.compress(value)
        return (ZSTD, stored) if len(stored) < len(value) else (RAW, value)

    def decode(self, codec: int, stored: bytes | None) -> bytes | None:
        """Return the value as it was appended.

        Raises:
            LogError: the stored bytes are damaged, or were written by a newer Cordon.
        """
        if codec == RAW or stored is None:
            return stored
        if codec != ZSTD:
            raise LogError(
                f"a record is stored with codec {codec}, unknown here: use the Cordon that wrote it, or newer"
            )
        decompressor = getattr(self._local, "decompressor", None)
        if decompressor is None:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor()
        try:
            value: bytes = decompressor.decompress(stored, max_output_size=VALUE_BYTES_MAX)
        except zstandard.ZstdError as error:
            raise LogError(
                f"a stored record is damaged ({error}): check the disk, restore the log from a backup"
            ) from error
        return value

    def plain_bytes(self, codec: int, stored: bytes | None) -> int:
        """Return the value's length without decompressing it."""
        if stored is None:
            return 0
        return len(stored) if codec == RAW else max(0, zstandard.frame_content_size(stored))
