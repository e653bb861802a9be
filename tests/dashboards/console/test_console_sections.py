import re
from html import escape, unescape

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dashboards.console.sections import Section

HEAD, FOOT = "<table><thead><tr><th>Name</th></tr></thead>\n<tbody>\n", "\n</tbody>\n</table>"
NAMES = st.text('ab"<>&\n', max_size=3)
TABLES = st.dictionaries(NAMES, st.text("xy<>/tr\n ", max_size=8), max_size=12)


def table(rows: dict[str, str], foot: str = FOOT) -> Section:
    """Return a section whose names and cells are escaped, as the templates do."""
    drawn = [f'<tr data-row="{escape(name)}" class="">\n<td>{escape(text)}</td>\n</tr>' for name, text in rows.items()]
    return Section.of("rollouts", HEAD + "".join(drawn) + foot)


def said(event: bytes) -> dict[str, object]:
    name, _, data = event.decode().partition("\ndata: ")
    found: dict[str, object] = msgspec.json.decode(data)
    return {"event": name, **found}


def taken(before: str, event: bytes) -> str:
    """Do with a section what the browser does with a change."""
    change = said(event)
    rows = {unescape(name): row for row, name in re.findall(r'(<tr data-row="([^"]*)".*?</tr>)', before, re.DOTALL)}
    fresh, order = change["rows"], change["order"]
    assert isinstance(fresh, dict)
    rows |= fresh
    if isinstance(order, list):
        rows = {name: rows[name] for name in order}
    return HEAD + "".join(rows.values()) + FOOT


@given(TABLES, TABLES)
def test_whoever_takes_a_change_has_the_section_after_byte_for_byte(
    before: dict[str, str], after: dict[str, str]
) -> None:
    was, now = table(before), table(after)
    change = now.change_from(was)
    if change:
        assert said(change)["was"] == was.digest
        assert said(change)["digest"] == now.digest
        assert taken(was.html, change) == now.html


def test_of_two_hundred_rows_only_the_one_that_changed_is_sent() -> None:
    rows = {f"r-{number}": "healthy " * 20 for number in range(200)}
    was, now = table(rows), table(rows | {"r-7": "killed"})
    change = said(now.change_from(was))
    assert change["event"] == "event: rows"
    assert change["order"] is None
    assert list(change["rows"]) == ["r-7"]  # type: ignore[call-overload]  # of what was decoded
    assert len(now.change_from(was)) < len(now.whole) / 100


def test_rows_that_only_moved_are_not_sent_again() -> None:
    rows = {f"r-{number}": "healthy " * 20 for number in range(200)}
    moved = {"r-199": rows["r-199"], **rows}
    change = said(table(moved).change_from(table(rows)))
    assert change["rows"] == {}
    assert change["order"] == list(moved)


def test_the_whole_is_sent_where_rows_do_not_tell_all() -> None:
    rows = {f"r-{number}": "healthy" for number in range(50)}
    assert table(rows, "\n</tbody></table>49 shown").change_from(table(rows)) == b""
    assert table(dict.fromkeys(rows, "other")).change_from(table(rows)) == b""
    assert Section.of("strip", "<p>one</p>").change_from(Section.of("strip", "<p>two</p>")) == b""
    twice = Section.of("rollouts", table(rows).html + table(rows | {"r-1": "x"}).html)
    assert twice.change_from(Section.of("rollouts", table(rows).html * 2)) == b""
