"""The generated pages: none is stale, everything declared is on them, and what the code names is declared."""

import ast
import enum
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from deploy.docs.__main__ import FOLDER, main
from deploy.docs.pages import pages
from deploy.docs.tables import WORDS
from detectors.gate import CELL_WORD_DOCS, CellWord
from detectors.verdict import DECISION_DOCS, REASON_DOCS, VERDICT_DOCS, DecisionWord, Reason, VerdictWord
from ingest.deadletter import DEAD_REASON_DOCS, DeadReason
from ingest.endpoint.errors import DUMP_REASON_DOCS, DumpReason
from ingest.metrics import METRICS, Kind
from ingest.outcome import OUTCOME_DOCS, REFUSAL_DOCS, Outcome, Refusal
from ingest.settings import NOT_SETTINGS, setting_docs
from ingest.topics import TOPICS, Topics
from signals.killswitch.effective import EFFECTIVE_REASON_DOCS, EffectiveReason
from signals.killswitch.gate_answer import GATE_REASON_DOCS, GateReason
from signals.killswitch.machine import ENDED_DOCS, Ended
from signals.killswitch.results import COMMAND_RESULT_DOCS, CommandResult
from support.repository_files import PACKAGES, REPOSITORY, named

KIND_OF_CALL = {
    "count": Kind.COUNTER,
    "counter": Kind.COUNTER,
    "set": Kind.GAUGE,
    "observe": Kind.HISTOGRAM,
}
CLOSED: list[tuple[Mapping[Any, str], type[enum.StrEnum]]] = [
    (OUTCOME_DOCS, Outcome),
    (REFUSAL_DOCS, Refusal),
    (VERDICT_DOCS, VerdictWord),
    (DECISION_DOCS, DecisionWord),
    (REASON_DOCS, Reason),
    (COMMAND_RESULT_DOCS, CommandResult),
    (ENDED_DOCS, Ended),
    (EFFECTIVE_REASON_DOCS, EffectiveReason),
    (GATE_REASON_DOCS, GateReason),
    (CELL_WORD_DOCS, CellWord),
    (DEAD_REASON_DOCS, DeadReason),
]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def metric_calls() -> Iterator[tuple[str, str, str, set[str]]]:
    """Yield place, method, metric name and label names of every call that counts something by a literal name."""
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                first = node.args[0] if node.args else None
                if node.func.attr not in KIND_OF_CALL or "metrics" not in ast.unparse(node.func.value):
                    continue
                assert isinstance(first, ast.Constant), f"{named(path)}:{node.lineno}: name the metric by a literal"
                labels = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                yield f"{named(path)}:{node.lineno}", node.func.attr, str(first.value), labels


def test_no_page_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    """`make docs` was run after the last change of a declaration."""
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    page = tmp_path / "settings.md"
    page.write_text(page.read_text(encoding="utf-8") + "edited\n", encoding="utf-8")
    (tmp_path / "metrics.md").unlink()
    capsys.readouterr()
    assert main(["--folder", str(tmp_path), "--check"]) == 1
    said = capsys.readouterr().err
    assert [name for name in pages() if name in said] == ["settings.md", "metrics.md"]
    assert page.read_text(encoding="utf-8").endswith("edited\n")
    assert not (tmp_path / "metrics.md").exists()


def test_pages_are_the_same_when_made_again(made: dict[str, str]) -> None:
    assert pages() == made


def test_the_index_names_every_page(made: dict[str, str]) -> None:
    assert set(re.findall(r"\]\(([^)]+)\)", made["README.md"])) == set(made) - {"README.md"}
    assert {path.name for path in FOLDER.iterdir()} >= set(made)


@pytest.mark.parametrize(("docs", "words"), CLOSED, ids=[words.__name__ for _, words in CLOSED])
def test_every_closed_word_is_documented_and_on_the_page(
    made: dict[str, str], docs: Mapping[Any, str], words: type[enum.StrEnum]
) -> None:
    assert set(docs) == set(words)
    assert any(listed is docs for _, _, listed in WORDS)
    for word in words:
        assert len(docs[word]) > 10
        assert f"| `{word.value}` | {docs[word]} |" in made["outcomes.md"]


def test_every_reason_of_a_dump_error_is_documented_and_on_the_page(made: dict[str, str]) -> None:
    assert set(DUMP_REASON_DOCS) == set(get_args(DumpReason))
    for reason, doc in DUMP_REASON_DOCS.items():
        assert f"| `{reason}` | {doc} |" in made["outcomes.md"]


def test_every_setting_is_documented_and_on_the_page(made: dict[str, str]) -> None:
    for name, environment, _, doc in setting_docs():
        assert len(doc) > 10, name
        assert f"| `{name}` | `{environment}` |" in made["settings.md"]
        assert doc in made["settings.md"]
    for name in NOT_SETTINGS:
        assert f"| `{name}` |" in made["settings.md"]


def test_every_metric_is_documented_and_on_the_page(made: dict[str, str]) -> None:
    for metric in METRICS:
        assert len(metric.doc) > 10, metric.name
        assert f"| `cordon_{metric.name}` | {metric.kind.value}" in made["metrics.md"]
        assert metric.doc in made["metrics.md"]


def test_every_topic_is_documented_and_on_both_pages(made: dict[str, str]) -> None:
    for topic in TOPICS:
        assert len(topic.doc) > 10, topic.word
        assert f"| `{Topics().name(topic.word)}` | {topic.doc} |" in made["topics.md"]
        assert f"  {topic.word}:\n    address: {Topics().name(topic.word)}\n" in made["asyncapi.yaml"]


def test_every_metric_that_the_code_names_is_declared_with_that_kind_and_those_labels() -> None:
    declared = {metric.name: metric for metric in METRICS}
    seen = set()
    for place, method, name, labels in metric_calls():
        assert name in declared, f"{place}: {name} is not declared in ingest/metrics.py"
        assert declared[name].kind is KIND_OF_CALL[method], f"{place}: {name} is a {declared[name].kind}"
        assert set(declared[name].labels) == labels, f"{place}: {name} has the labels {declared[name].labels}"
        seen.add(name)
    assert len(seen) > 15, "the search finds too few: does the code count in another way now?"
