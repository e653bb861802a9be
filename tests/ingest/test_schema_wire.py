"""Records of the schema before are read in every topic, and one that is too new is refused, never half understood.

There is no schema before 1, so what an upgrade will do is rehearsed: in a process whose code has the next number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detectors.verdict import Verdict
from ingest.clock import DrivenClock
from ingest.events import SCHEMA, SCHEMA_WRITTEN, SCHEMAS_READ, UNREADABLE_ERRORS
from ingest.grouping.columns import decode_activity, decode_crashes
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.grouping_history import History
from support.wire_decoders import BOUNDED, DECODERS, DETECTORS, TOLERANT
from support.world import T0

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "v1"
# Parts of others, or of a form that is not ours to number.
WITHOUT_SCHEMA = {"cloud_event", "envelope", "lease_event", "rollout_declaration", "switch", "switch_of_part"}


@pytest.fixture(scope="module")
def rehearsal() -> dict[str, Any]:
    """Return what the next release's schema does."""
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    command = [sys.executable, "-m", "support.schema_rehearsal", str(GOLDEN)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_wire_type_with_a_schema_is_looked_at() -> None:
    files = {path.stem for path in GOLDEN.glob("*.json") if b'"schema":' in path.read_bytes()}
    assert files - WITHOUT_SCHEMA == {*DECODERS, *DETECTORS} - WITHOUT_SCHEMA
    assert not set(BOUNDED) & set(TOLERANT)


def test_the_next_release_reads_two_schemas_and_writes_the_old_one(rehearsal: dict[str, Any]) -> None:
    assert rehearsal["schema"] == SCHEMA + 1
    assert rehearsal["read"] == [SCHEMA, SCHEMA + 1]
    assert rehearsal["written"] == SCHEMA_WRITTEN


@pytest.mark.parametrize("name", DECODERS)
def test_the_next_release_reads_todays_records_in_every_topic(rehearsal: dict[str, Any], name: str) -> None:
    """And writes the very same bytes, so that today's release reads what it writes."""
    assert rehearsal["golden"][name] == {"same": True, "next": True, "after": name in TOLERANT}


def test_gateways_of_both_schemas_beside_each_other_are_counted_alike(rehearsal: dict[str, Any]) -> None:
    """Records, ticks and notices of two schemas in turns give the model's counts, and no dead letter."""
    assert rehearsal["mixed"] == {"at_risk": True, "crashes": True, "letters": True}


@pytest.mark.parametrize("name", [*BOUNDED, *DETECTORS])
@pytest.mark.parametrize("schema", [SCHEMA + 1, SCHEMA + 2, 0, -1])
def test_a_record_of_a_schema_that_is_not_read_is_refused(name: str, schema: int) -> None:
    decoder = {**BOUNDED, **DETECTORS}[name]
    value = (GOLDEN / f"{name}.json").read_bytes()
    changed = value.replace(b'"schema":1', b'"schema":%d' % schema, 1)
    assert changed != value
    with pytest.raises(UNREADABLE_ERRORS, match="schema"):
        decoder.decode(changed)


@pytest.mark.parametrize("name", ["batch", "tick", "rollout_notice"])
def test_groupings_own_reader_of_crashes_refuses_it_too(name: str) -> None:
    value = (GOLDEN / f"{name}.json").read_bytes()
    if name == "batch":
        # Grouping's crash topic holds crashes only.
        batch = json.loads(value)
        batch["reports"] = [report for report in batch["reports"] if report["kind"] in ("bsod", "boot_loop")]
        value = json.dumps(batch, separators=(",", ":")).encode()
    assert decode_crashes(value) is not None
    assert decode_crashes(value.replace(b'"schema":1', b'"schema":2', 1)) is None


def test_an_old_worker_that_meets_the_next_schema_stands_still_rather_than_count_wrong() -> None:
    """Where somebody tells writers too early: a dead letter each, no step, and so blindness, which never kills."""
    topics, clock = Topics(device_partitions=2), DrivenClock(T0)
    log, history, metrics = MemoryLog(topic_specs(topics), clock), History(topics), Metrics()
    stage = GroupingStage(topics, GroupingSettings(range(2), 100_000, 900, 60), metrics)
    states = [TopicPartition(topics.name("fleet"), number) for number in range(2)]
    owner = Owner(log, "grouping", "grouping", stage, states, clock)
    owner.start()
    for turn in range(40):
        entries = history.step()
        if turn >= 30:
            entries = [e._replace(value=(e.value or b"").replace(b'"schema":1', b'"schema":2')) for e in entries]
        log.append(entries)
        while owner.step(0):
            pass
        if turn == 29:
            reached = stage.watermark_ms
    assert reached > T0
    assert stage.watermark_ms == reached
    assert metrics.value("deadletters_total", reason="unreadable") >= 10 * 4


def test_the_readers_decode_what_the_schemas_read_say() -> None:
    """The numbers in the types are those that the gateway judges reports by."""
    value = (GOLDEN / "tick.json").read_bytes()
    for schema in range(-1, SCHEMA + 4):
        changed = value.replace(b'"schema":1', b'"schema":%d' % schema)
        assert (decode_activity(changed) is not None) == (schema in SCHEMAS_READ)
    assert Verdict.__struct_fields__[0] == "schema"
