"""Whatever devices, vendors, pagers and people wrote, it changes nothing of the page but its own text."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.incident.page import page
from dashboards.incident.words import plain
from support.incident_reports import Read, answers, material, signed, switches
from support.switches import KEYS, SIGNER

HOSTILE = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "</td></tr></table></style><style>*{display:none}",
    "</title></svg><svg onload=alert(1)>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt; &#60;",
    "\u202egnp.exe\u2066",
    "a\x00b\x1b[31m\x07\n\u2028",
    "]]><![CDATA[",
]  # fmt: skip
_TEXTS = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=64)


def hostile(text: str) -> dict[str, list[dict[str, Any]]]:
    """Return the recording with `text` wherever somebody else writes a text."""
    said = answers()
    for row in said["reach"]:
        if row["dimension"] != "all":
            row["name"] = text
    for row in said["signatures"]:
        row["signature"], row["module"], row["frames"] = text, text, "\n".join([text.replace("\n", " ")] * 2)
    for row in said["pages"]:
        row["owner"], row["route"], row["headline"], row["answer"], row["answered"] = (text,) * 5
    for row in said["reasons"]:
        row["said"] = text
    declared = json.loads(said["rollout"][0]["json"])
    declared["vendor"] = declared["product"] = declared["version"] = declared["declared_by"] = text or "x"
    for ring in declared["rings"]:
        ring["name"] = text[:64] or "x"
    said["rollout"][0]["json"] = json.dumps(declared)
    told = [
        msgspec.structs.replace(one, sentence=text, reason=text, name=text, policy=text, vendor=text)
        for one in switches()
    ]
    said["decisions"] = signed(told, SIGNER)
    return said


SHAPE = [name for name, _ in Read(page(material(hostile("plain"), keys=KEYS))).elements]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_makes_no_element(text: str) -> None:
    read = Read(page(material(hostile(text), keys=KEYS)))
    assert [name for name, _ in read.elements if name != "li"] == [name for name in SHAPE if name != "li"]
    for name, attributes in read.elements:
        assert not any(word.startswith("on") for word in attributes), name


@given(_TEXTS)
@settings(max_examples=25)
def test_no_text_makes_an_element_or_hides_anything(text: str) -> None:
    written = page(material(hostile(text), keys=KEYS))
    read = Read(written)
    assert "script" not in {name for name, _ in read.elements}
    assert [name for name, _ in read.elements if name != "li"] == [name for name in SHAPE if name != "li"]
    assert all(plain(one, len(written)) == one for one in written.split("\n"))


def test_direction_marks_and_control_characters_are_seen() -> None:
    text = Read(page(material(hostile("\u202egnp.exe\x1b"), keys=KEYS))).text
    assert "\\u202egnp.exe\\x1b" in text


def test_a_text_is_not_longer_than_it_may_be() -> None:
    assert len(plain("a" * 10_000)) == 600


@given(st.text())
def test_plain_text_stays_as_it_is_and_is_made_plain_only_once(text: str) -> None:
    assert plain(plain(text, 10**6), 10**6) == plain(text, 10**6)
