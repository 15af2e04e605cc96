"""The registry of a process: it makes each Prometheus instrument and keeps its description."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# The creation time of each counter would double the size of the page, and rate() does not need it.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class MetricDescription(NamedTuple):
    """One row of the generated page of metrics."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class MetricRegistry:
    """Makes counters, gauges and histograms whose names begin with ``forewatch_``."""

    def __init__(self) -> None:
        self.collector = CollectorRegistry()
        self.described: list[MetricDescription] = []
        ProcessCollector(registry=self.collector)

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Make a counter; Prometheus appends ``_total`` to its name."""
        self.described.append(MetricDescription(f"forewatch_{name}_total", "counter", labels, meaning))
        return Counter(f"forewatch_{name}", meaning, labels, registry=self.collector)

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """Make a gauge."""
        self.described.append(MetricDescription(f"forewatch_{name}", "gauge", labels, meaning))
        return Gauge(f"forewatch_{name}", meaning, labels, registry=self.collector)

    def histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        """Make a histogram of durations in seconds."""
        self.described.append(MetricDescription(f"forewatch_{name}", "histogram", labels, meaning))
        return Histogram(
            f"forewatch_{name}", meaning, labels, buckets=_BUCKETS_SECONDS, registry=self.collector
        )
