"""What a Grafana must hold, as values: built from the committed boards and from what a person says of the sources.

Pure; `plan` compares it with what is there, `client` puts it in place. Invariant: every resource has a fixed uid, so
that putting it twice changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from dashboards.grafana.queries import Language, Query, query

FOLDER_UID = "cordon"
CLICKHOUSE_UID, CLICKHOUSE_TYPE = "cordon-clickhouse", "grafana-clickhouse-datasource"
PROMETHEUS_UID = "cordon-prometheus"
CONTACT_UID, CONTACT_NAME = "cordon-contact", "Cordon"
GROUP = "cordon"


class Kind(StrEnum):
    """What a resource is, in the order in which they need each other."""

    FOLDER = "folder"
    DATA_SOURCE = "data source"
    BOARD = "board"
    CONTACT_POINT = "contact point"
    ALERT_RULE = "alert rule"


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that Grafana must hold.

    Attributes:
        uid: fixed for ever.
        body: the fields that Cordon sets; what Grafana adds beside them is its own.
        secret: fields that Grafana takes and never gives back.
    """

    kind: Kind
    uid: str
    body: Mapping[str, Any]
    secret: Mapping[str, Any]


class SourceError(ValueError):
    """What was said of a data source can't be used; the message says what to write."""


@dataclass(frozen=True, slots=True)
class ClickHouseSource:
    """Where Grafana finds Cordon's store.

    Attributes:
        url: `native://host:9000`, `http://host:8123`, or with an `s` behind the scheme for TLS.
        database: `cordon`, or `cordon_LANE`.
    """

    url: str
    database: str = "cordon"
    user: str = "default"
    password: str = ""

    def resource(self) -> Resource:
        """Return the data source.

        Raises:
            SourceError: the URL is none that the data source can connect by.
        """
        parts = urlsplit(self.url)
        protocol, secure = parts.scheme.removesuffix("s"), parts.scheme.endswith("s")
        if protocol not in ("native", "http") or not parts.hostname or parts.port is None:
            raise SourceError(
                f"ClickHouse at {self.url!r}: write native://HOST:9000, natives://, http://HOST:8123 or https://"
            )
        body = {
            "name": "Cordon store",
            "type": CLICKHOUSE_TYPE,
            "access": "proxy",
            "jsonData": {
                "host": parts.hostname,
                "port": parts.port,
                "protocol": protocol,
                "secure": secure,
                "username": self.user,
                "defaultDatabase": self.database,
            },
        }
        secret = {"secureJsonData": {"password": self.password}} if self.password else {}
        return Resource(Kind.DATA_SOURCE, CLICKHOUSE_UID, body, secret)


def prometheus_source(url: str) -> Resource:
    """Return the data source of the Prometheus that scrapes Cordon.

    Raises:
        SourceError: the URL is none.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SourceError(f"Prometheus at {url!r}: write http://HOST:9090")
    body: dict[str, Any] = {"name": "Cordon metrics", "type": "prometheus", "access": "proxy", "url": url}
    body["jsonData"] = {"httpMethod": "POST"}
    return Resource(Kind.DATA_SOURCE, PROMETHEUS_UID, body, {})


def contact_point(target: str) -> Resource:
    """Return where alerts go: a URL gets a webhook, an address a mail.

    Raises:
        SourceError: it is neither.
    """
    if urlsplit(target).scheme in ("http", "https") and urlsplit(target).hostname:
        body = {"name": CONTACT_NAME, "type": "webhook", "settings": {"url": target, "httpMethod": "POST"}}
    elif target.count("@") == 1 and "//" not in target:
        body = {"name": CONTACT_NAME, "type": "email", "settings": {"addresses": target, "singleEmail": True}}
    else:
        raise SourceError(f"contact {target!r}: write a URL for a webhook, or an e-mail address")
    return Resource(Kind.CONTACT_POINT, CONTACT_UID, {**body, "disableResolveMessage": False}, {})


def folder() -> Resource:
    """Return the folder that everything lies in."""
    return Resource(Kind.FOLDER, FOLDER_UID, {"title": "Cordon"}, {})


def boards() -> list[Resource]:
    """Return the committed boards."""
    files = sorted((resources.files("dashboards.grafana") / "json").iterdir(), key=lambda file: file.name)
    bodies = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.name.endswith(".json")]
    return [Resource(Kind.BOARD, body["uid"], body, {}) for body in bodies]


def alert_rules(*, with_contact: bool) -> list[Resource]:
    """Return the alert rules that Grafana itself evaluates.

    Args:
        with_contact: they go to Cordon's contact point; else by Grafana's own policies.
    """
    return [rule.resource(with_contact=with_contact) for rule in RULES]


def alerting_file() -> dict[str, Any]:
    """Return the alert rules as Grafana reads them from a file."""
    rules = []
    for rule in RULES:
        body = dict(rule.resource(with_contact=False).body)
        kept = {name: value for name, value in body.items() if name not in ("orgID", "folderUID", "ruleGroup")}
        rules.append({"uid": rule.uid, **kept})
    group = {"orgId": 1, "name": GROUP, "folder": "Cordon", "interval": "30s", "rules": rules}
    return {"apiVersion": 1, "groups": [group]}


def wanted(sources: Sequence[Resource], contact: Resource | None) -> list[Resource]:
    """Return everything, in the order in which it has to be put."""
    points = [] if contact is None else [contact]
    return [folder(), *sources, *boards(), *points, *alert_rules(with_contact=contact is not None)]


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A rule that Grafana evaluates.

    Attributes:
        query: name of its query, which gives one number.
        above: the number from which on it fires.
        for_seconds: for so long at least.
        quiet: no rows are all right; else they are an alert of their own.
        runbook: the runbook's name.
    """

    uid: str
    title: str
    query: str
    above: float
    for_seconds: int
    severity: str
    quiet: bool
    runbook: str

    def resource(self, *, with_contact: bool) -> Resource:
        """Return the rule as Grafana's provisioning API takes it."""
        found = query(self.query)
        body: dict[str, Any] = {
            "title": self.title,
            "orgID": 1,
            "folderUID": FOLDER_UID,
            "ruleGroup": GROUP,
            "condition": "C",
            "data": [_asked(found), _query("C", "__expr__", _threshold(self.above))],
            "noDataState": "OK" if self.quiet else "NoData",
            "execErrState": "Error",
            "for": f"{self.for_seconds}s",
            "labels": {"severity": self.severity, "product": "cordon"},
            "annotations": {
                "summary": self.title,
                "description": found.about,
                "runbook": f"deploy/runbooks/{self.runbook}.md",
            },
        }
        if with_contact:
            body["notification_settings"] = {"receiver": CONTACT_NAME}
        return Resource(Kind.ALERT_RULE, self.uid, body, {})


RULES = (
    AlertRule("cordon-stopped", "A rollout is stopped", "fleet/stopped", 0.0, 0, "critical", False, "rollout-stopped"),
    AlertRule("cordon-blind", "Cordon does not see", "pipeline/freshness", 60.0, 60, "critical", False, "blind"),
    # Drills that are off are no alert.
    AlertRule(
        "cordon-drill", "No drill passed for a day", "pipeline/drill_age", 100_000.0, 300, "warning", True, "drill"
    ),
)


def _asked(found: Query) -> dict[str, Any]:
    sql = found.language is Language.SQL
    source = CLICKHOUSE_UID if sql else PROMETHEUS_UID
    model: dict[str, Any] = {"refId": "A", "datasource": {"uid": source}}
    if sql:
        model |= {"rawSql": found.text, "format": 1, "queryType": "table", "editorType": "sql"}
    else:
        model |= {"expr": found.text, "instant": True, "range": False}
    return _query("A", source, model)


def _query(ref: str, source: str, model: Mapping[str, Any]) -> dict[str, Any]:
    return {"refId": ref, "datasourceUid": source, "relativeTimeRange": {"from": 600, "to": 0}, "model": model}


def _threshold(above: float) -> dict[str, Any]:
    condition = {"evaluator": {"type": "gt", "params": [above]}}
    source = {"uid": "__expr__", "type": "__expr__"}
    return {"refId": "C", "type": "threshold", "expression": "A", "datasource": source, "conditions": [condition]}
