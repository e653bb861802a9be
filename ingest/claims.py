"""A claim on a name, as Kafka's log keeps it: the record's offset is the fence's epoch.

Offsets of one partition grow for ever and are never given twice, which producer epochs do not promise: a later claim
always has the higher epoch.
"""

import msgspec

from ingest.events import SCHEMA_WRITTEN


class Claim(msgspec.Struct, kw_only=True, tag_field="kind", tag="claim"):
    """One record of `cordon.fences.v1`, keyed by `name`.

    Attributes:
        name: what is claimed, for instance `grouping/3`.
        claimed_by: a word of the process that claimed it, for people.
        at_ms: its wall clock.
    """

    schema: int = SCHEMA_WRITTEN
    name: str
    claimed_by: str
    at_ms: int


claim_decoder = msgspec.json.Decoder(Claim)
