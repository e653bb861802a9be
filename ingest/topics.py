"""The log's topics, each declared once: its name, key, retention and what it carries.

`Topics` gives the names of one lane. Lane `live` has the plain names; any other lane's topics stand apart
(`cordon.replay-1.crashes.v1`), because rollout systems obey `live` only.
"""

import enum
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

LIVE_LANE = "live"
_LANE = re.compile(r"[a-z][a-z0-9-]{0,30}")


class Spread(enum.StrEnum):
    """How many partitions a topic has."""

    DEVICE = "device"  # the installation's partition count, fixed for its life
    KEYED = "keyed"  # by product or rollout
    ONE = "one"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic's declaration.

    Attributes:
        word: the name's variable part.
        key: what the record key is, in words.
        retention_hours: how long records are kept; None keeps them for ever.
        compacted: only the latest record of each key is kept.
        doc: what the topic carries.
    """

    word: str
    spread: Spread
    key: str
    retention_hours: int | None
    compacted: bool
    doc: str


TOPICS: tuple[Topic, ...] = (
    Topic(
        "intake",
        Spread.DEVICE,
        "any",
        72,
        False,
        "reports as foreign producers write them, one or an array; header `authorization: Bearer TOKEN`",
    ),
    Topic("crashes", Spread.DEVICE, "none", 72, False, "batches of bsod and boot_loop reports, and ticks"),
    Topic(
        "activity",
        Spread.DEVICE,
        "none",
        72,
        False,
        "offered, installed, check_in by columns; ticks; rollout notices",
    ),
    Topic("rollouts", Spread.ONE, "rollout id", None, True, "the whole rollout, declared or discovered"),
    Topic("fleet", Spread.DEVICE, "chunk name", None, True, "packed chunks of the fleet's state"),
    Topic("cohorts", Spread.KEYED, "none", 12, False, "steps of device partitions with their cohort windows"),
    Topic("detection", Spread.KEYED, "chunk name", None, True, "the detectors' state"),
    Topic("verdicts", Spread.KEYED, "rollout id", None, True, "latest verdict of each rollout with its evidence"),
    Topic(
        "alerts",
        Spread.ONE,
        "alert id",
        None,
        True,
        "crash patterns that belong to no rollout, and their watch's state",
    ),
    Topic("commands", Spread.KEYED, "rollout id", 24 * 42, False, "what people asked for: hold, kill, release, mute"),
    Topic("killswitch", Spread.KEYED, "rollout id", None, False, "signed kill-switch events, numbered per rollout"),
    Topic("switches", Spread.KEYED, "rollout id", None, True, "latest kill-switch event of each rollout"),
    Topic("leases", Spread.KEYED, "rollout id", None, True, "signed proceed leases"),
    Topic("audit", Spread.KEYED, "rollout id", None, False, "who asked for what and what became of it, chained"),
    Topic("subscriptions", Spread.ONE, "webhook id", None, True, "webhooks: where events are posted, and which"),
    Topic(
        "deliveries",
        Spread.KEYED,
        "webhook id and partition",
        None,
        True,
        "how far each webhook was served; dead letters",
    ),
    Topic(
        "pages",
        Spread.KEYED,
        "rollout id",
        None,
        True,
        "what vendors are to be told of each rollout, and how far it got",
    ),
    Topic("pagings", Spread.KEYED, "rollout id", 24 * 42, False, "every attempt to page, with its answer"),
    Topic("pageorders", Spread.KEYED, "rollout id", 24 * 42, False, "what people asked of the pagers: mute, redeliver"),
    Topic("fences", Spread.ONE, "claimed name", None, True, "claims on names: who may write; its offset is the epoch"),
    Topic("progress", Spread.ONE, "owner", None, True, "how far each owner of a share of the work has come"),
    Topic("installation", Spread.ONE, "fact", None, True, "what all processes must agree on: keys by fingerprint"),
    Topic("deadletter", Spread.ONE, "source topic", 24 * 42, False, "what could not be used, why, where it came from"),
)


# What a reprocessing lane takes from another one, and never writes to.
SOURCE_WORDS = ("crashes", "activity", "rollouts")


@dataclass(frozen=True, slots=True)
class Topics:
    """The topic names and partition counts of one lane.

    Attributes:
        lane: names the run.
        device_partitions: of topics partitioned by device.
        keyed_partitions: of topics partitioned by product or rollout.
        source_lane: whose reports and rollouts a reprocessing lane reads; empty for its own.
    """

    lane: str = LIVE_LANE
    device_partitions: int = 8
    keyed_partitions: int = 1
    source_lane: str = ""

    def __post_init__(self) -> None:
        """Refuse a lane name that could be mistaken for another topic."""
        for lane in (self.lane, self.source_lane or self.lane):
            if not _LANE.fullmatch(lane):
                raise ValueError(f"lane {lane!r}: use a lower-case letter, then letters, digits or '-', 31 at most")

    def name(self, word: str) -> str:
        """Return the topic name of `word` in this lane.

        Raises:
            KeyError: no topic is declared by that word.
        """
        if all(topic.word != word for topic in TOPICS):
            raise KeyError(f"no topic {word!r}; declared are {', '.join(topic.word for topic in TOPICS)}")
        lane = self.source_lane if self.source_lane and word in SOURCE_WORDS else self.lane
        return f"cordon.{word}.v1" if lane == LIVE_LANE else f"cordon.{lane}.{word}.v1"

    def partitions(self, topic: Topic) -> int:
        """Return how many partitions `topic` has in this installation."""
        if topic.spread is Spread.ONE:
            return 1
        return self.device_partitions if topic.spread is Spread.DEVICE else self.keyed_partitions


def partition_of(pseudonym: str, partitions: int) -> int:
    """Return the partition of a device: the first four bytes of its pseudonym modulo the partition count."""
    return int(pseudonym[:8], 16) % partitions


def partitions_of(pseudonyms: Sequence[str], partitions: int) -> list[int]:
    """Return the partition of each device, at half the cost of asking `partition_of` for one after the other."""
    leading = struct.unpack(">" + "I4x" * len(pseudonyms), bytes.fromhex("".join(pseudonyms)))
    return [number % partitions for number in leading]


def keyed_partition_of(key: str, partitions: int) -> int:
    """Return the partition of a product or rollout: CRC-32 of the key modulo the partition count."""
    return zlib.crc32(key.encode()) % partitions
