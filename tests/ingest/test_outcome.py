"""Outcomes: closed words, one meaning each, with what to do about it."""

import enum
import re

import pytest

from ingest.outcome import OUTCOME_DOCS, REFUSAL_DOCS, Outcome, Refusal


@pytest.mark.parametrize(("words", "docs"), [(Outcome, OUTCOME_DOCS), (Refusal, REFUSAL_DOCS)])
def test_every_word_is_documented_and_fit_for_a_label(words: type[enum.StrEnum], docs: dict[enum.StrEnum, str]) -> None:
    assert list(docs) == list(words)
    for word in words:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", word.value)
        assert word.value == word.name.lower()
        assert docs[word].endswith(".")


def test_every_refusal_tells_its_status() -> None:
    statuses = {refusal: int(REFUSAL_DOCS[refusal][:3]) for refusal in Refusal}
    assert set(statuses.values()) == {400, 401, 403, 404, 409, 413, 415, 429, 503}
    assert all(REFUSAL_DOCS[refusal][3] == ":" for refusal in Refusal)
