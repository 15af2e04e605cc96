"""Check of PromQL expressions against the metrics that forewatch defines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from pipeline.observability.metrics_reference import metric_descriptions

#: Series that a histogram exposes beside its name.
HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")
#: Labels that Prometheus, Kubernetes or the supervisor of workers adds to each series.
TARGET_LABELS = frozenset({"job", "instance", "namespace", "pod", "service", "worker"})
#: Metrics of the process itself (prometheus_client) and of Prometheus.
PROCESS_METRICS = frozenset(
    {
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "up",
    }
)

_METRIC = re.compile(r"\b(?:forewatch|process)_\w+")
_RECORDED = re.compile(r"\bforewatch:[\w:]+")
_SELECTOR = re.compile(r"\b((?:forewatch|process)[_:][\w:]+)\{([^}]*)\}")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


class UnknownMetric(Exception):
    """An expression names a metric or a label that does not exist."""


@cache
def metric_labels() -> Mapping[str, frozenset[str]]:
    """Return the labels of each series name that ``/metrics`` can expose."""
    known = {name: frozenset[str]() for name in PROCESS_METRICS}
    for one in metric_descriptions():
        labels = frozenset(one.labels)
        if one.kind == "histogram":
            known |= {one.name + suffix: labels | {"le"} for suffix in HISTOGRAM_SUFFIXES}
        else:
            known[one.name] = labels
    return known


def check_expression(expression: str, recorded: frozenset[str]) -> None:
    """Check that each metric, label and recorded series of a PromQL expression exists.

    Raises:
        UnknownMetric: A name does not exist.
    """
    known = metric_labels()
    used = set(_METRIC.findall(expression))
    if missing := used - known.keys():
        raise UnknownMetric(f"no metric {', '.join(sorted(missing))} in: {expression}")
    if missing := set(_RECORDED.findall(expression)) - recorded:
        raise UnknownMetric(f"no recording rule {', '.join(sorted(missing))} in: {expression}")
    for metric, matchers in _SELECTOR.findall(expression):
        labels = set(_MATCHER.findall(matchers))
        if metric in known and (missing := labels - known[metric] - TARGET_LABELS):
            raise UnknownMetric(f"{metric} has no label {', '.join(sorted(missing))}: {expression}")
    if used:
        possible = frozenset().union(*(known[metric] for metric in used)) | TARGET_LABELS | {"le"}
        named = {label.strip() for group in _GROUPING.findall(expression) for label in group.split(",")}
        if missing := named - {""} - possible:
            raise UnknownMetric(f"no metric has the label {', '.join(sorted(missing))}: {expression}")
