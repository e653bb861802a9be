"""Record batches: entries to the bytes that brokers store, and back.

One append makes one batch a partition, so its records get consecutive offsets and are there as a whole or not at all.
kafka-python's builder lays a batch out; reading is done here, because most of a record's way through its parser is
copying (measured in the README).
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import zstandard
from kafka.codec import gzip_decode, lz4_decode, snappy_decode
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c, decode_varint

from ingest.log.interface import LogError, Record

# Brokers take batches of 1 MiB and a little (message.max.bytes); below that a batch is taken whatever it compresses to.
BATCH_BYTES_MAX = 1 << 20
INFLATED_BYTES_MAX = 256 << 20
ZSTD_LEVEL = 1
# A tick alone: compressing it costs more than it saves.
PLAIN_BYTES_MAX = 512

_ZSTD = DefaultRecordBatchBuilder.CODEC_ZSTD
_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_FROM = 21
_LENGTH_FROM = 12
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_MAGIC = 2


class _Builder(DefaultRecordBatchBuilder):  # type: ignore[misc]  # the library has no types
    """kafka-python's builder, compressing by zstd-1 in place of its zstd-3."""

    def _maybe_compress(self) -> bool:
        size = self.HEADER_STRUCT.size
        if len(self._buffer) < PLAIN_BYTES_MAX:
            return False
        data = bytes(self._buffer[size:])
        packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)
        if len(packed) >= len(data):
            return False
        self._buffer[size:] = packed
        return True


def build(
    records: Sequence[tuple[bytes | None, bytes | None]],
    now_ms: int,
    producer_id: int,
    producer_epoch: int,
    sequence: int,
    *,
    transactional: bool,
) -> bytearray:
    """Return the batch of keys and values as a broker takes it."""
    builder = _Builder(
        magic=_MAGIC,
        compression_type=_ZSTD,
        is_transactional=transactional,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=sequence,
        batch_size=1 << 31,
    )
    for number, (key, value) in enumerate(records):
        builder.append(number, now_ms, key, value, [])
    built: bytearray = builder.build()
    return built


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as fetched, not yet decompressed.

    Attributes:
        first: offset of its first record as written; compaction may have taken it since.
        last: offset of its last record as written.
        producer_id: who wrote it; -1 where nobody says.
        transactional: it counts only once its transaction was committed.
        control: the marker of a transaction's end; holds no records.
        raw: header and records.
    """

    first: int
    last: int
    producer_id: int
    transactional: bool
    control: bool
    raw: memoryview

    def records(self, offset: int) -> Iterator[Record]:
        """Return the records from `offset` on.

        Raises:
            LogError: the batch is corrupt.
        """
        (_, _, _, _, crc, attributes, _, first_ms, max_ms, _, _, _, count) = _HEADER.unpack_from(self.raw)
        if calc_crc32c(self.raw[_CRC_FROM:]) != crc:
            raise LogError(f"the batch at offset {self.first} is corrupt (CRC): restore the topic from a replica")
        appended_ms = max_ms if attributes & _APPEND_TIME else None
        data, at = _inflated(self.raw, attributes & _CODEC), 0
        for _ in range(count):
            length, at = decode_varint(data, at)
            end = at + length
            delta_ms, at = decode_varint(data, at + 1)
            delta, at = decode_varint(data, at)
            size, at = decode_varint(data, at)
            key = None if size < 0 else data[at : at + size]
            size, at = decode_varint(data, at + max(size, 0))
            if self.first + delta >= offset:
                value = None if size < 0 else data[at : at + size]
                yield Record(
                    self.first + delta, key, value, first_ms + delta_ms if appended_ms is None else appended_ms
                )
            # Headers follow; nobody here writes or reads any.
            at = end


def split(data: bytes | bytearray | memoryview | None) -> list[Batch]:
    """Return the whole batches in a fetch answer; a broker may cut the last one off."""
    batches: list[Batch] = []
    view, at = memoryview(data or b""), 0
    while at + _HEADER.size <= len(view):
        first, length, _, magic, _, attributes, delta, _, _, producer, _, _, _ = _HEADER.unpack_from(view, at)
        end = at + _LENGTH_FROM + length
        if end > len(view):
            break
        if magic != _MAGIC:
            raise LogError(f"the batch at offset {first} has format {magic}: brokers since Kafka 4 know 2 alone")
        transactional, control = bool(attributes & _TRANSACTIONAL), bool(attributes & _CONTROL)
        batches.append(Batch(first, first + delta, producer, transactional, control, view[at:end]))
        at = end
    return batches


def _inflated(raw: memoryview, codec: int) -> bytes:
    data = bytes(raw[_HEADER.size :])
    if codec == 0:
        return data
    inflated = _DECODERS[codec](data)
    if len(inflated) > INFLATED_BYTES_MAX:
        raise LogError(
            f"a batch inflates to more than {INFLATED_BYTES_MAX >> 20} MiB: no producer of Cordon writes that"
        )
    return inflated


def _zstd(data: bytes) -> bytes:
    if 0 <= zstandard.frame_content_size(data) <= INFLATED_BYTES_MAX:
        return zstandard.ZstdDecompressor().decompress(data)
    # The Java producer writes frames that do not say how large they are.
    with zstandard.ZstdDecompressor().stream_reader(BytesIO(data), read_across_frames=True) as reader:
        return reader.read(INFLATED_BYTES_MAX + 1)


_DECODERS: dict[int, Callable[[bytes], bytes]] = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, _ZSTD: _zstd}
