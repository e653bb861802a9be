"""What pages share that are one file and ask nobody for anything: how they are filled in, and what their policy allows.

Used by incident reports and by previews of panels. Invariant: every text is made plain and escaped, whatever it says.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dashboards.incident.words import plain


def templates_in(folder: Path) -> Environment:
    """Return what fills in the templates of a folder; a name that a template misspells is an error."""
    return Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, finalize=_made_plain,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def source_hash(text: str) -> str:
    """Return what a content security policy calls a script or style of the page's own by: SHA-256 in base64."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _made_plain(value: Any) -> Any:
    """Make whatever a template says plain; what is markup already was made here."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
