"""Inflate a body, bounded while it inflates.

A bomb never gets further than the limit: each step may give only what is left of it. gzip with several members and
zstd with several frames are read to their end, as their formats have it; a nested bomb is inflated once and what comes
out is not JSON.
"""

import zlib

import zstandard

from ingest.gateway.refusal import RequestRefusedError
from ingest.outcome import Refusal

_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
# A zstd frame names the window it needs; more than the largest body makes no sense and costs memory.
_ZSTD_WINDOW_BYTES_MAX = 1 << 24
# Each member or frame costs a decompressor: a body of a million empty ones is an attack.
MEMBERS_MAX = 1024
_STEP_BYTES = 1 << 18


def inflate(body: bytes, encoding: str, inflated_bytes_max: int) -> bytes:
    """Return the body as it was before compression.

    Args:
        body: the bytes as received.
        encoding: the Content-Encoding header; empty for none.
        inflated_bytes_max: the most that may come out.

    Raises:
        RequestRefusedError: an unknown encoding, a broken stream, or too much in it.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        if len(body) > inflated_bytes_max:
            raise _too_large(inflated_bytes_max)
        return body
    try:
        if name in ("gzip", "x-gzip"):
            return _gzip(body, inflated_bytes_max)
        if name == "zstd":
            return _zstd(body, inflated_bytes_max)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise RequestRefusedError(Refusal.BAD_REQUEST, f"the body is not sound {name}: {error}") from error
    raise RequestRefusedError(
        Refusal.UNSUPPORTED_ENCODING, f"Content-Encoding {name[:40]!r} is not known: send gzip, zstd or identity"
    )


def _gzip(body: bytes, inflated_bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    rest = body
    for _ in range(MEMBERS_MAX):
        stream = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
        part = stream.decompress(rest, inflated_bytes_max - size + 1)
        size += len(part)
        if size > inflated_bytes_max:
            raise _too_large(inflated_bytes_max)
        if not stream.eof:
            raise EOFError("it ends in the middle of a member")
        parts.append(part)
        # RFC 1952 has members follow one another; writers may pad with zeros.
        rest = stream.unused_data.lstrip(b"\x00")
        if not rest:
            return b"".join(parts)
    raise _too_many_members()


def _zstd(body: bytes, inflated_bytes_max: int) -> bytes:
    """Inflate by a bounded reader: `decompressobj` would give a whole step's output however large."""
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX).stream_reader(
        body, read_across_frames=True
    )
    if not body:
        raise EOFError("it is empty")
    parts: list[bytes] = []
    size = 0
    while part := reader.read(min(_STEP_BYTES, inflated_bytes_max - size + 1)):
        size += len(part)
        if size > inflated_bytes_max:
            raise _too_large(inflated_bytes_max)
        parts.append(part)
    return b"".join(parts)


def _too_large(inflated_bytes_max: int) -> RequestRefusedError:
    return RequestRefusedError(
        Refusal.BODY_TOO_LARGE, f"more than {inflated_bytes_max} bytes after decompression: post fewer reports at once"
    )


def _too_many_members() -> RequestRefusedError:
    return RequestRefusedError(Refusal.BAD_REQUEST, f"more than {MEMBERS_MAX} gzip members in one body")
