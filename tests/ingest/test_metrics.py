"""Metrics: what is not declared cannot be counted, in production as in tests."""

import math
from collections.abc import Callable

import pytest

from ingest.metrics import METRICS, Kind, Metrics, UndeclaredMetricError


def test_names_are_declared_once_and_say_their_kind() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER), metric.name
        assert bool(metric.buckets) is (metric.kind is Kind.HISTOGRAM), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name


@pytest.mark.parametrize(
    "count",
    [
        lambda metrics: metrics.count("reportz_total"),
        lambda metrics: metrics.counter("reportz_total"),
        lambda metrics: metrics.set("reportz_total", 1),
        lambda metrics: metrics.observe("reportz_total", 1),
        lambda metrics: metrics.value("reportz_total"),
    ],
)
def test_an_undeclared_metric_raises(count: Callable[[Metrics], object]) -> None:
    with pytest.raises(UndeclaredMetricError, match="reportz_total"):
        count(Metrics())


@pytest.mark.parametrize(
    "count",
    [
        lambda metrics: metrics.count("pending_reports"),
        lambda metrics: metrics.counter("post_seconds"),
        lambda metrics: metrics.set("ticks_total", 1),
        lambda metrics: metrics.observe("pending_reports", 1),
    ],
)
def test_a_metric_of_another_kind_raises(count: Callable[[Metrics], object]) -> None:
    with pytest.raises(UndeclaredMetricError, match="is not a"):
        count(Metrics())


def test_an_undeclared_label_raises() -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().count("reports_total", tenant="acme")


def test_what_is_counted_is_told() -> None:
    metrics = Metrics()
    metrics.count("reports_total", 3, outcome="accepted")
    metrics.counter("reports_total", outcome="accepted")(4)
    metrics.set("pending_reports", 12)
    metrics.set("pending_reports", 5)
    metrics.observe("post_seconds", 0.004)
    assert metrics.value("reports_total", outcome="accepted") == 7
    assert metrics.value("reports_total", outcome="throttled") == 0
    assert metrics.value("pending_reports") == 5
    text = metrics.exposition().decode()
    assert 'cordon_reports_total{outcome="accepted"} 7.0' in text
    assert 'cordon_post_seconds_bucket{le="0.0025"} 0.0' in text
    assert 'cordon_post_seconds_bucket{le="0.005"} 1.0' in text


def test_two_processes_do_not_share_counts() -> None:
    first, second = Metrics(), Metrics()
    first.count("ticks_total", math.e)
    assert second.value("ticks_total") == 0


def test_every_declared_metric_is_exposed_with_its_documentation() -> None:
    text = Metrics().exposition().decode()
    for metric in METRICS:
        assert f"# HELP cordon_{metric.name} {metric.doc}" in text
