"""Recording and alerting rules as values."""

from __future__ import annotations

from typing import NamedTuple


class RecordingRule(NamedTuple):
    """A series that Prometheus computes from others."""

    name: str
    expression: str


class AlertRule(NamedTuple):
    """One alert; ``wait`` is the time that its expression must hold (``5m``)."""

    name: str
    expression: str
    wait: str
    severity: str
    summary: str
    action: str
