"""What is sent of a section that changed: of a table the rows that are others now, of anything else the whole.

Between rendering and the live board. Rows are told by the `data-row` that the templates give them, and whatever people
wrote is escaped in them, so no text can pass for one. Invariant: whoever has the section before and takes the change
has the section after, byte for byte.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from html import unescape

import msgspec

_ROW = re.compile(r'<tr data-row="([^"]*)".*?</tr>', re.DOTALL)
# A change that is nearly as large as the section spares nobody anything.
_SHARE_MAX = 0.5


def digest_of(html: str) -> str:
    """Return what a browser compares to know whether it has a section already."""
    return hashlib.sha256(html.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Section:
    """A section of a page as it was rendered.

    Attributes:
        name: the id of its element.
        html: all of it.
        digest: of that.
    """

    name: str
    html: str
    digest: str

    @classmethod
    def of(cls, name: str, html: str) -> "Section":
        """Return a section that was just rendered."""
        return cls(name, html, digest_of(html))

    @cached_property
    def whole(self) -> bytes:
        """The event that brings all of it."""
        said = {"id": self.name, "digest": self.digest, "html": self.html}
        return b"event: section\ndata: %s\n\n" % msgspec.json.encode(said)

    @cached_property
    def parts(self) -> tuple[str, dict[str, str]]:
        """What stands round the rows, and the rows by their names, in their order.

        There are none where it has no table or several, or two rows of one name.
        """
        if self.html.count("<tbody") != 1:
            return self.html, {}
        between, rows, end, many = [], {}, 0, 0
        for row in _ROW.finditer(self.html):
            between.append(self.html[end : row.start()])
            rows[unescape(row[1])] = row[0]
            end = row.end()
            many += 1
        between.append(self.html[end:])
        return ("".join(between), rows) if len(rows) == many else (self.html, {})

    def change_from(self, before: "Section") -> bytes:
        """Return the event that makes this section of the one before; empty where only the whole does."""
        (frame, rows), (frame_before, rows_before) = self.parts, before.parts
        if not rows or not rows_before or frame != frame_before:
            return b""
        changed = {name: html for name, html in rows.items() if rows_before.get(name) != html}
        if sum(map(len, changed.values())) > _SHARE_MAX * len(self.html):
            return b""
        said = {
            "id": self.name,
            "was": before.digest,
            "digest": self.digest,
            "order": list(rows) if list(rows) != list(rows_before) else None,
            "rows": changed,
        }
        return b"event: rows\ndata: %s\n\n" % msgspec.json.encode(said)
