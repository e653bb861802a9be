"""The pages of settings, metrics and closed words."""

import enum
from collections.abc import Mapping
from typing import Any, get_type_hints

from deploy.docs.markdown import head, table
from detectors.gate import CELL_WORD_DOCS
from detectors.verdict import DECISION_DOCS, REASON_DOCS, VERDICT_DOCS
from ingest.deadletter import DEAD_REASON_DOCS
from ingest.endpoint.errors import DUMP_REASON_DOCS
from ingest.metrics import METRICS, Kind
from ingest.outcome import OUTCOME_DOCS, REFUSAL_DOCS
from ingest.settings import NOT_SETTINGS, Settings, setting_docs
from signals.delivery.webhooks.words import ATTEMPT_DOCS
from signals.killswitch.audit import AUDIT_ACTION_DOCS
from signals.killswitch.effective import EFFECTIVE_REASON_DOCS
from signals.killswitch.gate_answer import GATE_REASON_DOCS
from signals.killswitch.lease import WITHHELD_DOCS
from signals.killswitch.machine import ENDED_DOCS
from signals.killswitch.results import COMMAND_RESULT_DOCS
from signals.pagers.orders import RESULT_DOCS
from signals.pagers.words import ANSWERED_DOCS, CHANNEL_DOCS, LEVEL_DOCS, ORDER_DOCS, ROLE_DOCS, STEP_DOCS

SETTINGS_INTRODUCTION = """
A setting comes from the TOML file given with `--config`, from the environment, or from an option of the command line,
each winning over the one before. An unknown name or a value out of range is an error: a typo never becomes a default.
"""
METRICS_INTRODUCTION = """
At `/metrics` of the reports listener, in Prometheus text format. Label values are closed words or bounded numbers;
nothing a sender chooses becomes one.
"""
OUTCOMES_INTRODUCTION = """
Closed sets: the same word stands in the answer, in the log line and in the metric's label.
"""

# Title, where it is seen, and the documentation of each word.
WORDS: tuple[tuple[str, str, Mapping[Any, str]], ...] = (
    (
        "Outcomes of a report",
        "`reports_total`, `grouped_total`, `reason` of a refused report",
        OUTCOME_DOCS,
    ),
    ("Refusals of a request", "`requests_refused_total`, `reason` of a 4xx or 5xx answer", REFUSAL_DOCS),
    ("Verdicts", "`verdict` in a verdict, `verdicts_total`", VERDICT_DOCS),
    ("Decisions", "`decision` in verdicts and kill-switch events, `killswitch_events_total`", DECISION_DOCS),
    ("Reasons of verdicts", "`reason` in a verdict and in an event that a detector caused", REASON_DOCS),
    (
        "Results of commands",
        "`result` of a command and in the audit trail, `commands_refused_total`",
        COMMAND_RESULT_DOCS,
    ),
    ("What ends by itself", "`reason` in an event of cause `timer`, `action` in the audit trail", ENDED_DOCS),
    ("Actions in the audit trail", "`action` in `cordon.audit.v1`", AUDIT_ACTION_DOCS),
    ("Reasons for no lease", "`lease_withheld` of the verdict endpoint, `leases_withheld`", WITHHELD_DOCS),
    (
        "Why a rollout may or may not go on",
        "`decision_reason` of a verdict, a gate and a hook, `reason` in a flag's metadata",
        EFFECTIVE_REASON_DOCS,
    ),
    ("Why a gate is open or shut", "`reason` of `GET /v1/rollouts/{id}/gate`", GATE_REASON_DOCS),
    ("Cells of a gate", "`word` of a cell in a verdict's gate and in the gate's answer", CELL_WORD_DOCS),
    ("Reasons of dead letters", "`reason` in `cordon.deadletter.v1`, `deadletters_total`", DEAD_REASON_DOCS),
    ("Ends of a webhook's post", "`word` of dead letters and tests, `webhook_attempts_total`", ATTEMPT_DOCS),
    ("Loudness of a page", "`level` in `cordon.pages.v1` and `cordon.pagings.v1`, `least` of a route", LEVEL_DOCS),
    ("What is told over a route", "`step` in `cordon.pages.v1` and `cordon.pagings.v1`", STEP_DOCS),
    ("Why somebody is told", "`role` in a page", ROLE_DOCS),
    ("Answers of a channel", "`answered` in `cordon.pagings.v1`, `pager_sends_total`", ANSWERED_DOCS),
    ("Channels", "`channel` of a route", CHANNEL_DOCS),
    ("Orders to the pagers", "`cordon pagers`, `cordon.pageorders.v1`", ORDER_DOCS),
    ("Results of orders to the pagers", "the place records of `cordon.pages.v1`", RESULT_DOCS),
    ("Errors of reading a dump", "`cordon report`", DUMP_REASON_DOCS),
)


def settings_page() -> str:
    """Return the page of settings."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = []
    for name, environment, default, doc in setting_docs():
        kind, meta = hints[name].__origin__, hints[name].__metadata__[0]
        span = f"{meta.ge} to {meta.le}" if meta.ge is not None else ("true or false" if kind is bool else "text")
        rows.append((f"`{name}`", f"`{environment}`", f"`{_toml(default)}`", span, doc))
    text = head("Settings", "`ingest/settings.py`") + SETTINGS_INTRODUCTION + "\n"
    text += table(("setting", "environment", "default", "range", "meaning"), rows)
    text += "\n## Names that are no settings\n\nThey share the prefix, and belong in no file.\n\n"
    return text + table(("environment", "meaning"), ((f"`{name}`", doc) for name, doc in NOT_SETTINGS.items()))


def metrics_page() -> str:
    """Return the page of metrics."""
    rows = []
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        buckets = ", ".join(f"{bucket:g}" for bucket in metric.buckets)
        kind = f"{metric.kind.value} ({buckets})" if metric.kind is Kind.HISTOGRAM else metric.kind.value
        rows.append((f"`cordon_{metric.name}`", kind, labels, metric.doc))
    text = head("Metrics", "`ingest/metrics.py`") + METRICS_INTRODUCTION + "\n"
    return text + table(("metric", "type (buckets)", "labels", "meaning"), rows)


def outcomes_page() -> str:
    """Return the page of closed words."""
    text = head("Outcomes, refusals and reasons", "the enumerations in the code") + OUTCOMES_INTRODUCTION
    for title, where, docs in WORDS:
        rows = ((f"`{_word(word)}`", doc) for word, doc in docs.items())
        text += f"\n## {title}\n\nSeen in: {where}.\n\n{table(('word', 'meaning'), rows)}"
    return text


def _word(word: Any) -> str:
    return str(word.value) if isinstance(word, enum.Enum) else str(word)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
