"""The stage's state as entries of the compacted state topic: chunks of at most 256 KB, whole or refused.

All chunks of a snapshot are written in one atomic append and speak of the same input offsets; a rollout that did not
change since its last chunks is not written again, for they still say what is. The chunk `stage/0` holds the offsets
and a manifest: which rollouts there are, in how many chunks, of which writing. What does not fit together is refused.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import zstandard

SCHEMA: Final = 1
STAGE: Final = "stage"
# Under 256 KB with the envelope round it.
_PIECE_BYTES: Final = 250_000
_STATE_BYTES_MAX: Final = 1 << 30


class StateError(Exception):
    """The state in the log is not whole, or of a schema this version does not read; the message says what to do."""


class Chunk(msgspec.Struct, kw_only=True):
    """One chunk.

    Attributes:
        writing: number of the snapshot that wrote it; chunks of one name belong together only if it is the same.
        index: place of this piece among `of`.
        offsets: next offset by `topic/partition`, at the time of writing.
        data: a piece of the zstd-compressed msgpack of the state.
    """

    schema: int = SCHEMA
    writing: int
    index: int
    of: int
    offsets: dict[str, int]
    data: bytes


_chunks = msgspec.msgpack.Decoder(Chunk)


def pack(name: str, state: msgspec.Struct, writing: int, offsets: Mapping[str, int]) -> list[tuple[bytes, bytes]]:
    """Return the chunks of one state as (key, value) pairs."""
    blob = zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(state))
    pieces = [blob[at : at + _PIECE_BYTES] for at in range(0, len(blob), _PIECE_BYTES)]
    return [
        (
            f"{name}/{index}".encode(),
            msgspec.msgpack.encode(
                Chunk(writing=writing, index=index, of=len(pieces), offsets=dict(offsets), data=piece)
            ),
        )
        for index, piece in enumerate(pieces)
    ]


def gather(entries: Iterable[tuple[bytes, bytes]]) -> dict[str, dict[int, Chunk]]:
    """Return the chunks by name and index.

    Raises:
        StateError: an entry is no chunk, or of another schema.
    """
    found: dict[str, dict[int, Chunk]] = {}
    for key, value in entries:
        try:
            chunk = _chunks.decode(value)
            name, index = key.decode().rsplit("/", 1)
            found.setdefault(name, {})[int(index)] = chunk
        except (msgspec.MsgspecError, ValueError) as error:
            raise StateError(f"entry {key!r} of the detection topic is no chunk: {error}") from error
        if chunk.schema != SCHEMA:
            raise StateError(
                f"the detection state has schema {chunk.schema}, this version reads {SCHEMA}: run the version that "
                f"wrote it, or start a new lane"
            )
    return found


def join(name: str, chunks: Mapping[int, Chunk], writing: int | None = None) -> bytes:
    """Return the msgpack of the state that the chunks hold together.

    Raises:
        StateError: a piece is missing, or of another writing than `writing`.
    """
    first = chunks.get(0)
    if first is None or (writing is not None and first.writing != writing):
        raise StateError(f"the detection state of {name} is not whole: restore the topic, or start a new lane")
    pieces = [chunks.get(index) for index in range(first.of)]
    if any(piece is None or piece.writing != first.writing for piece in pieces):
        raise StateError(f"the detection state of {name} is not whole: restore the topic, or start a new lane")
    blob = b"".join(piece.data for piece in pieces if piece is not None)
    return zstandard.ZstdDecompressor().decompress(blob, max_output_size=_STATE_BYTES_MAX)
