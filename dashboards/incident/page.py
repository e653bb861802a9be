"""Material to HTML: one file that asks nobody for anything.

The last step of a report. Invariants: every text is made plain and escaped, whatever it says; the page carries a policy
that lets no script run and nothing be fetched; the same material gives the same bytes.
"""

import functools
from pathlib import Path
from typing import Final

import msgspec
from jinja2 import Environment
from markupsafe import Markup

from dashboards.incident import words
from dashboards.incident.material import Material
from dashboards.incident.plots import plots
from dashboards.incident.summary import summary, unseen
from dashboards.incident.timeline import MARKS, time_line
from dashboards.one_file import source_hash, templates_in
from dashboards.svg import styles
from detectors.policy import Policy
from detectors.verdict import REASON_DOCS

_TEMPLATES: Final = Path(__file__).parent / "templates"
_BOUNDS: Final = {
    "declared": "by the rollout's declaration: rings and lists",
    "offered": "by what devices post before they activate it",
    "none": "by nothing",
}
_DIMENSIONS: Final = (("ring", "Ring"), ("os_build", "OS build"), ("tenant", "Tenant"))


def page(material: Material) -> str:
    """Return the report."""
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8") + styles()
    return (
        _environment()
        .get_template("report.html")
        .render(
            m=material,
            style=Markup(style),  # noqa: S704  # our own files
            style_hash=source_hash(style),
            plots=[(name, Markup(svg)) for name, svg in plots(material)],  # noqa: S704  # dashboards.svg escapes
            summary=summary(material),
            time_line=time_line(material),
            unseen=unseen(material),
            policy=_flat(material.policy),
            dimensions=_DIMENSIONS,
            bounds=_BOUNDS,
            marks={state.value: mark for state, mark in MARKS.items()},
            reason_docs={reason.value: doc for reason, doc in REASON_DOCS.items()},
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = templates_in(_TEMPLATES)
    for name in ("moment", "span", "count", "power", "percent", "rough"):
        environment.filters[name] = getattr(words, name)
    return environment


def _flat(policy: Policy | None) -> list[tuple[str, str]]:
    """Return a policy's values by dotted name."""
    if policy is None:
        return []
    found: list[tuple[str, str]] = []
    for name, value in msgspec.to_builtins(policy).items():
        inner = value.items() if isinstance(value, dict) else None
        found += [(f"{name}.{one}", _said(other)) for one, other in inner] if inner else [(name, _said(value))]
    return found


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
