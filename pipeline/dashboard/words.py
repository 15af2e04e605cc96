"""Sentences about an anomaly, and its numbers as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.core.types import Anomaly, AnomalyState
from pipeline.core.usual_range_text import usual_range_text
from pipeline.core.verdict_words import CAUSE_TEXTS

MS = 1_000_000


def finite(value: float) -> float | None:
    """Return a number that JSON has, or None."""
    return float(value) if math.isfinite(value) else None


def leading(anomaly: Anomaly) -> int:
    """Return the place of the channel that contributed most."""
    return max(range(len(anomaly.channels)), key=lambda at: anomaly.contribution[at])


def short_text(anomaly: Anomaly, units: Mapping[str, str] | None = None) -> str:
    """Return a sentence: leading channel, value, usual or expected range.

    Args:
        anomaly: the anomaly.
        units: channel → unit.
    """
    at = leading(anomaly)
    name = anomaly.channels[at]
    unit = (units or {}).get(name)
    ended = anomaly.state is AnomalyState.CLOSED
    if text := usual_range_text(anomaly, unit, ended=ended):
        return text
    observed, lower, upper = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    behind = f" {unit}" if unit else ""
    value = "had no value" if not math.isfinite(observed) else f"was {observed:.5g}{behind}"
    band = (
        f"expected {lower:.5g} to {upper:.5g}{behind}"
        if math.isfinite(lower) and math.isfinite(upper)
        else CAUSE_TEXTS.get(anomaly.cause, "without a forecast").partition(":")[0]
    )
    return f"{name} {value}, {band}"


def anomaly_json(anomaly: Anomaly, units: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what the pages show about an anomaly.

    Args:
        anomaly: the anomaly.
        units: channel → unit.
    """
    names = ("observed", "expected", "lower", "upper", "contribution")
    return {
        "id": str(anomaly.id),
        "stream": anomaly.stream,
        "series": anomaly.series,
        "labels": anomaly.labels,
        "open": anomaly.state is AnomalyState.OPEN,
        "severity": anomaly.severity.value,
        "direction": anomaly.direction,
        "start_ms": anomaly.start_ns / MS,
        "peak_ms": anomaly.peak_ns / MS,
        "end_ms": anomaly.end_ns / MS,
        "points": anomaly.points,
        "surprise": finite(anomaly.surprise),
        "ratio": finite(anomaly.ratio),
        "relative": anomaly.relative,
        "cause": anomaly.cause,
        "cause_text": CAUSE_TEXTS.get(anomaly.cause, "no single cause"),
        "forecaster": anomaly.forecaster,
        "model_version": anomaly.model_version,
        "revision": anomaly.revision,
        "text": short_text(anomaly, units),
        "channels": [
            {"name": name, "unit": (units or {}).get(name)}
            | {key: finite(getattr(anomaly, key)[at]) for key in names}
            for at, name in enumerate(anomaly.channels)
        ],
    }
