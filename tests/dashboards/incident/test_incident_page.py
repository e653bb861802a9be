"""The report as a file: the same bytes for the same data, nothing fetched, readable by eye, ear and printer."""

import base64
import hashlib
import re
from pathlib import Path

from dashboards.incident.page import page
from support.incident_reports import FOLDER, Read, material

GOLDEN = FOLDER / "report.html"
REPORT = page(material())


def test_the_report_of_the_recorded_incident_is_what_it_was(tmp_path: Path) -> None:
    """Where it changed on purpose, look at the new file and copy it over the golden one."""
    new = tmp_path / "report.html"
    new.write_text(REPORT, encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == REPORT, f"if it is better now: cp {new} {GOLDEN}"


def test_the_same_data_gives_the_same_bytes() -> None:
    assert page(material()) == REPORT


def test_nothing_is_fetched_and_no_script_runs() -> None:
    read = Read(REPORT)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & {
        name for name, _ in read.elements
    }
    for name, attributes in read.elements:
        assert not {"src", "srcset", "data", "action", "style"} & set(attributes), name
        assert not any(word.startswith("on") for word in attributes), name
        assert (attributes.get("href") or "#").startswith("#"), name
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", REPORT) == []
    assert "url(" not in re.sub(r"url\(#frame-\w+\)", "", REPORT)
    assert "@import" not in REPORT


def test_its_content_policy_allows_its_own_style_and_nothing_else() -> None:
    (policy,) = [
        one["content"] for one in Read(REPORT).named("meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.search(r"<style>(.*?)</style>", REPORT, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert REPORT.count("<style>") == 1


def test_headings_tables_and_plots_are_named_for_who_does_not_see_them() -> None:
    read = Read(REPORT)
    assert read.named("html")[0]["lang"] == "en"
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch("h[1-6]", name)]
    assert levels == [1] + [2] * 12
    assert len(read.named("caption")) == len(read.named("table"))
    assert all(one.get("scope") in ("col", "row") for one in read.named("th"))
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for svg in read.named("svg"):
        assert {svg["aria-labelledby"], svg["aria-describedby"]} <= set(ids)
    assert {str(one["href"])[1:] for one in read.named("a")} <= set(ids)


def test_lines_of_a_plot_differ_without_colour() -> None:
    for svg in re.findall(r"<svg.*?</svg>", REPORT, re.DOTALL):
        styles = re.findall(r'<polyline class="line line-\w( dashed| dotted)?" points', svg)
        assert len(styles) == len(set(styles)) >= 2


def test_every_section_says_something() -> None:
    text = Read(REPORT).text
    for words in (
        "2024-07-19.0409 171 s after the first crash, and killed it after 3 min 35 s.",
        "first crashes of 30 devices with the update and 3 without",
        "crowdstrike (first at",
        "The switch stands released by running-2",
        "watching → held",
        "csagent.sys+0xe14ed",
        "By OS build",
        "rate_ratio",
        "looping (crashed, and not quiet since)",
        "✓ Whole: 5 entries",
        "What was not seen",
    ):
        assert words in text, words
