"""Sentence about an anomaly, and numbers that JSON has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.core.end_text import told_statement
from pipeline.core.types import Anomaly
from pipeline.core.verdict_words import CAUSE_TEXTS


def finite(value: float) -> float | None:
    """Return a number that JSON has, or None."""
    return float(value) if math.isfinite(value) else None


def short_text(anomaly: Anomaly, units: Mapping[str, str] | None = None, zone: str = "") -> str:
    """Return a sentence: leading channel, value, usual or expected range.

    Args:
        anomaly: the anomaly.
        units: channel → unit.
        zone: time zone of times, "" for UTC.
    """
    at = anomaly.leading_channel
    name = anomaly.channels[at]
    unit = (units or {}).get(name)
    if text := told_statement(anomaly, unit, zone):
        return text
    observed, lower, upper = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    behind = f" {unit}" if unit else ""
    value = "had no value" if not math.isfinite(observed) else f"was {_number(observed)}{behind}"
    band = (
        f"expected {_number(lower)} to {_number(upper)}{behind}"
        if math.isfinite(lower) and math.isfinite(upper)
        else CAUSE_TEXTS.get(anomaly.cause, "without a forecast").partition(":")[0]
    )
    return f"{name} {value}, {band}"


def _number(value: float) -> str:
    """Return five significant digits, without an exponent up to 10¹²."""
    text = f"{value:.5g}"
    return f"{float(text):,.0f}" if "e+" in text and abs(value) < 1e12 else text
