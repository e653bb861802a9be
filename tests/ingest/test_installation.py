"""Facts of an installation: the first process says them, whoever was told otherwise does not start."""

import pytest

from ingest.installation import DisagreementError, agree, facts_in
from ingest.log.interface import Entry, FencedError
from support.words import WordLog

REMEDIES = {"key": "copy the key file", "partitions": "set it back"}


def tell(rig: WordLog, who: str = "gateway-1", **facts: str) -> None:
    agree(rig.log, rig.topics, facts, who, rig.clock, REMEDIES)


def test_the_first_process_says_what_the_others_must_agree_with() -> None:
    rig = WordLog()
    tell(rig, key="aa", partitions="2")
    tell(rig, "gateway-2", key="aa")
    assert {name: fact.value for name, fact in facts_in(rig.log, rig.topics).items()} == {
        "key": "aa",
        "partitions": "2",
    }
    with pytest.raises(DisagreementError, match=r"key is bb here.* is aa \(set by gateway-1\): copy the key file"):
        tell(rig, "gateway-2", key="bb")


def test_a_later_process_adds_what_was_not_said_before() -> None:
    rig = WordLog()
    tell(rig, key="aa")
    tell(rig, "worker-1", partitions="2")
    with pytest.raises(DisagreementError, match="set it back"):
        tell(rig, partitions="3")


def test_a_value_that_was_followed_by_another_may_be_replaced_by_whoever_knows_both() -> None:
    rig = WordLog()
    tell(rig, key="old")
    known = {"old", "new"}
    agree(rig.log, rig.topics, {"key": "new"}, "s2", rig.clock, REMEDIES, {"key": known.__contains__})
    with pytest.raises(DisagreementError):
        agree(rig.log, rig.topics, {"key": "other"}, "s3", rig.clock, REMEDIES, {"key": {"other"}.__contains__})
    assert facts_in(rig.log, rig.topics)["key"].value == "new"


def test_of_two_that_start_at_once_one_says_it_and_the_other_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever claimed first is fenced off by the second claim, looks again and finds a disagreement."""
    rig = WordLog()
    append = rig.log.append
    claims: list[object] = []

    def overtaken(entries: list[Entry], fence: object = None) -> list[int]:
        if not claims:
            claims.append(fence)
            tell(rig, "the-other", key="bb")
            raise FencedError("claimed by the other")
        return append(entries, fence)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(rig.log, "append", overtaken)
    with pytest.raises(DisagreementError, match="set by the-other"):
        tell(rig, key="aa")
