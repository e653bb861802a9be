"""The next release's schema, rehearsed: this code with `SCHEMA` raised by one and `SCHEMA_WRITTEN` left behind.

Run as `python -m support.schema_rehearsal GOLDEN_FOLDER` in a process of its own: the constant is changed in the source
before any other module is loaded, so every wire type and decoder is made as the next release will make it. It prints
what it found as JSON. What it can't prove is that a change of fields which that release may bring is a compatible one:
golden bytes of the schema then written will have to.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def raise_schema() -> int:
    """Load `ingest.events` with the next schema; return its number."""
    spec = importlib.util.find_spec("ingest.events")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    before = next(int(line.split("=")[1]) for line in source.splitlines() if line.startswith("SCHEMA = "))
    changed = source.replace(f"\nSCHEMA = {before}\n", f"\nSCHEMA = {before + 1}\n")
    assert changed != source
    module = importlib.util.module_from_spec(spec)
    sys.modules["ingest.events"] = module
    exec(compile(changed, spec.origin, "exec"), module.__dict__)
    return before + 1


def read_golden(folder: Path, schema: int) -> dict[str, Any]:
    """Read every golden record as it is, as of the next schema, and as of the one after; write it again."""
    from ingest.events import UNREADABLE_ERRORS, encoder
    from support.wire_decoders import DECODERS

    found: dict[str, Any] = {}
    for name, decoder in DECODERS.items():
        value = (folder / f"{name}.json").read_bytes().rstrip()
        mark = b'"schema":%d' % (schema - 1)
        answers = {"same": encoder.encode(decoder.decode(value)) == value}
        for word, number in (("next", schema), ("after", schema + 1)):
            changed = value.replace(mark, b'"schema":%d' % number)[:-1] + b',"a_new_field":[1]}'
            try:
                decoder.decode(changed)
                answers[word] = True
            except UNREADABLE_ERRORS:
                answers[word] = False
        found[name] = answers
    return found


def count_mixed(schema: int) -> dict[str, bool]:
    """Group a history whose gateways write the old schema and the next one in turns; compare with the model."""
    from ingest.clock import DrivenClock
    from ingest.grouping.stage import GroupingSettings, GroupingStage
    from ingest.log.interface import TopicPartition
    from ingest.log.memory import MemoryLog
    from ingest.log.owner import Owner
    from ingest.log.specs import topic_specs
    from ingest.metrics import Metrics
    from ingest.topics import Topics
    from support.grouping_history import History, Told
    from support.world import T0

    topics, clock = Topics(device_partitions=2), DrivenClock(T0)
    log, history = MemoryLog(topic_specs(topics), clock), History(topics)
    stage, states = _grouping(GroupingStage, GroupingSettings, Metrics, topics, TopicPartition)
    owner = Owner(log, "grouping", "grouping", stage, states, clock)
    owner.start()
    old, new = b'"schema":%d' % (schema - 1), b'"schema":%d' % schema
    for turn in range(120):
        entries = history.step()
        log.append(
            [
                entry._replace(value=(entry.value or b"").replace(old, new)) if (turn + place) % 2 else entry
                for place, entry in enumerate(entries)
            ]
        )
        while owner.step(0):
            pass
    told = Told(history.rollout)
    told.read(log.read(TopicPartition(topics.name("cohorts"), 0), 0, 1_000_000, 1 << 30))
    return {
        "at_risk": told.at_risk == history.expected_at_risk() and len(told.at_risk) > 5,
        "crashes": told.crashes == history.expected_crashes() and len(told.crashes) > 5,
        "letters": log.bounds(TopicPartition(topics.name("deadletter"), 0))[1] == 0,
    }


def _grouping(stage: Any, settings: Any, metrics: Any, topics: Any, source: Any) -> tuple[Any, list[Any]]:
    states = [source(topics.name("fleet"), number) for number in range(topics.device_partitions)]
    return stage(topics, settings(range(topics.device_partitions), 100_000, 900, 60), metrics()), states


def main() -> None:
    """Rehearse, and print what was found."""
    schema = raise_schema()
    from ingest.events import SCHEMA_WRITTEN, SCHEMAS_READ

    found = {
        "schema": schema,
        "written": SCHEMA_WRITTEN,
        "read": sorted(SCHEMAS_READ),
        "golden": read_golden(Path(sys.argv[1]), schema),
        "mixed": count_mixed(schema),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
