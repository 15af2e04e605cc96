"""Sentence about an anomaly, and numbers that JSON has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.core.verdict_words import CAUSE_TEXTS


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
    if text := anomaly_statement(anomaly, unit, ended=ended):
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
