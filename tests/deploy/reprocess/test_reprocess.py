"""Reprocessing gives the verdicts that live gave, from the same records, and leaves no trace in live."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli.main import main
from deploy.cli.reprocess import own_specs
from deploy.reprocess.run import Concluded, Reprocess
from deploy.reprocess.span import SpanLog, offset_at
from detectors.policy import load
from detectors.verdict import DecisionWord, VerdictWord
from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, Log, LogError, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import TopicSpec, topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.reprocessing import (
    CRASHES,
    CRASHES_AT,
    END,
    ROLLOUT,
    Driven,
    LiveStages,
    ends_and_commits,
    live_incident,
    settings_of,
    verdicts_of,
    write_incident,
)
from support.world import T0

LIVE = Topics(device_partitions=3, keyed_partitions=2)
AGAIN = Topics("again", 3, 2, source_lane="live")
SPECS = (*topic_specs(LIVE), *own_specs(AGAIN))
SECOND = 1000


@pytest.fixture(params=["memory", "embedded"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """Return a log in whose live lane the incident happened, with live's own stages at work."""
    clock = Driven(T0)
    opened: Log = MemoryLog(SPECS, clock) if request.param == "memory" else EmbeddedLog(tmp_path, SPECS, clock)
    live_incident(opened, LIVE, clock)
    yield opened
    opened.close()


def run(log: Log, from_ms: int, to_ms: int, topics: Topics = AGAIN) -> Reprocess:
    made = Reprocess(log, topics, settings_of(LIVE), load(None), WallClock(), Metrics(), from_ms=from_ms, to_ms=to_ms)
    made.run()
    return made


def test_from_the_beginning_it_says_what_live_said(log: Log) -> None:
    """Every verdict of the run is live's: words, numbers, event times; and the rollout is killed at the same moment."""
    live = list(verdicts_of(log, LIVE))
    found = run(log, T0, T0 + (END + 1) * SECOND)
    assert list(verdicts_of(log, AGAIN)) == live
    killed = [verdict for verdict in live if verdict.decision is DecisionWord.KILL]
    assert killed
    assert found.concluded.keys() == {ROLLOUT}
    assert found.concluded[ROLLOUT] == Concluded(
        verdict=live[-1],
        held_ms=next((v.at_ms for v in live if v.decision is DecisionWord.HOLD), None),
        killed_ms=killed[0].at_ms,
        verdicts=len(live),
    )
    assert found.concluded[ROLLOUT].verdict.evidence.crashes_exposed == CRASHES
    assert found.from_the_middle == 0


def test_live_is_not_touched(log: Log) -> None:
    """Its ends, its groups' commits and its fences are what they were, and its owners go on as if nothing had been."""
    stages = LiveStages(log, LIVE)
    stages.turn()
    before = ends_and_commits(log, LIVE)
    assert any(commits != [None] * 4 for _, commits in before.values())
    run(log, T0, T0 + (END + 1) * SECOND)
    assert ends_and_commits(log, LIVE) == before
    for owner in stages.owners:
        log.check(owner.fence)
    stages.turn()
    assert ends_and_commits(log, LIVE) == before


def test_it_ends_where_it_was_told(log: Log) -> None:
    """Up to a moment before the crashes there is no evidence; up to the middle of them there is some of it."""
    early = run(log, T0, T0 + CRASHES_AT * SECOND).concluded[ROLLOUT].verdict
    assert early.evidence.crashes_exposed == 0
    assert early.at_ms < T0 + CRASHES_AT * SECOND
    assert early.verdict is not VerdictWord.REGRESSED


def test_from_the_middle_it_watches_what_was_watched_and_says_what_it_lacks(log: Log) -> None:
    """The rollout's notice lies before the span; devices are known from their first report in it."""
    middle = run(log, T0 + 30 * SECOND, T0 + (END + 1) * SECOND)
    assert middle.from_the_middle == 2 * LIVE.device_partitions
    assert [rollout.rollout for rollout in middle.watched_before] == [ROLLOUT]
    evidence = middle.concluded[ROLLOUT].verdict.evidence
    # Crashes name the version, so the exposed arm is found again; its devices at risk are not: their offers lie before.
    assert evidence.crashes_exposed == CRASHES
    whole = list(verdicts_of(log, LIVE))[-1].evidence
    assert evidence.at_risk_exposed < whole.at_risk_exposed
    assert evidence.exposed < whole.exposed


def test_a_lane_is_used_once(log: Log) -> None:
    run(log, T0, T0 + 30 * SECOND)
    with pytest.raises(LogError, match=r"lane again has been used.*Choose another"):
        run(log, T0, T0 + 30 * SECOND)


def test_a_stage_that_writes_to_live_is_refused(log: Log) -> None:
    span = SpanLog(log, AGAIN, T0)
    before = ends_and_commits(log, LIVE)
    for topics, word in ((LIVE, "verdicts"), (LIVE, "cohorts"), (AGAIN, "activity"), (AGAIN, "rollouts")):
        with pytest.raises(LogError, match="another lane's"):
            span.append([Entry(AGAIN.name("cohorts"), 0, None, b"{}"), Entry(topics.name(word), 0, b"k", b"{}")])
    assert ends_and_commits(log, LIVE) == before
    assert log.bounds(TopicPartition(AGAIN.name("cohorts"), 0)) == (0, 0)


def test_a_lane_is_not_its_own_source(log: Log) -> None:
    with pytest.raises(ValueError, match="another lane"):
        SpanLog(log, Topics("live", 3, 2, source_lane="live"), T0)
    with pytest.raises(ValueError, match="empty"):
        run(log, T0 + 1, T0 + 1)


def test_offsets_are_found_by_time() -> None:
    """At a record's own time, between two, before the first, behind the last, and across holes of compaction."""
    clock = Driven(T0)
    specs = (TopicSpec("kept", 1, compacted=True), TopicSpec("empty", 1))
    log, source = MemoryLog(specs, clock), TopicPartition("kept", 0)
    for number in range(40):
        clock.pass_to(T0 + 10 * number)
        log.append([Entry("kept", 0, b"same" if number % 4 else b"%d" % number, b"x")])
    log.maintain()
    left = {record.offset: record.appended_at_ms for record in log.read(source, 0)}
    assert len(left) < 15
    for at_ms in range(T0 - 5, T0 + 420, 5):
        expected = min((offset for offset, appended in left.items() if appended >= at_ms), default=40)
        assert offset_at(log, source, at_ms) == expected
    assert offset_at(log, TopicPartition("empty", 0), T0) == 0


class TestCommand:
    """`cordon reprocess` on the data folder of a Cordon that does not run."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """Return a data folder whose live lane had an incident just now."""
        clock = Driven(T0)
        topics = Topics(device_partitions=8)
        log = EmbeddedLog(tmp_path / "log", topic_specs(topics), clock)
        for _ in write_incident(log, topics, clock):
            pass
        log.close()
        return tmp_path

    def command(self, data: Path, *more: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["reprocess", "--data", str(data), *more])
        return result.exit_code, result.output

    def test_it_prints_the_verdicts_and_writes_them(self, data: Path) -> None:
        found = data / "found.json"
        code, said = self.command(
            data, "--from", "2024-07-19T04:00:00Z", "--to", "2024-07-19", "--lane", "a", "--json", str(found)
        )
        assert code == 2, said
        code, said = self.command(
            data, "--from", "2024-07-19T04:00:00", "--to", "2024-07-20", "--lane", "a", "--json", str(found)
        )
        assert code == 0, said
        assert "kill" in said
        assert "2024-07-19 04:0" in said
        concluded = json.loads(found.read_bytes())
        assert concluded[ROLLOUT]["verdict"]["decision"] == "kill"
        assert concluded[ROLLOUT]["killed_ms"] > T0 + CRASHES_AT * SECOND

    def test_it_says_that_it_began_in_the_middle(self, data: Path) -> None:
        code, said = self.command(data, "--from", "2024-07-19T06:00:30+02:00", "--to", "2024-07-20", "--lane", "b")
        assert code == 0, said
        assert "16 partitions begin before the span" in said
        assert "1 rollouts that began before it are watched" in said

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--from", "2024-07-19", "--lane", "live"], "must not be live"),
            (["--from", "2024-07-19", "--lane", "Not A Lane"], "use a lower-case letter"),
            (["--from", "yesterday", "--lane", "a"], "write it like 2024-07-19T04:00:00Z"),
            (["--from", "2024-07-19", "--to", "2099-01-01", "--lane", "a"], "not in the future"),
            (["--from", "2024-07-19", "--data", "nowhere", "--lane", "a"], "holds no log"),
        ],
    )
    def test_what_cannot_be_done_says_what_to_do(self, data: Path, more: list[str], message: str) -> None:
        code, said = self.command(data, *more)
        assert code != 0
        assert message in said.replace("\n", " ")

    def test_it_refuses_while_cordon_runs(self, data: Path) -> None:
        log = EmbeddedLog(data / "log", topic_specs(Topics()), WallClock())
        try:
            code, said = self.command(data, "--from", "2024-07-19", "--lane", "a")
        finally:
            log.close()
        assert code == 1
        assert "another Cordon" in said
