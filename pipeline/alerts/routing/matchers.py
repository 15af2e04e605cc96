"""Matchers of rules and silences, compiled once and applied to every event."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pipeline.core.types import Anomaly
from pipeline.core.verdict_words import former_forecaster

Matcher = Callable[[Mapping[str, str]], bool]
#: Fields of an anomaly that are no labels.
PROPERTIES = frozenset(
    {"stream", "series", "channel", "direction", "severity", "forecaster", "cause", "guard"}
)


def match_fields(anomaly: Anomaly) -> dict[str, str]:
    """Return the properties and labels of an anomaly that matchers test.

    A label with the name of a property is matched as ``label.<name>``.
    """
    known = {
        "stream": anomaly.stream,
        "series": anomaly.series,
        "channel": anomaly.channels[anomaly.leading_channel],
        "direction": anomaly.direction,
        "severity": anomaly.severity.value,
        "forecaster": anomaly.forecaster,
        "cause": anomaly.cause,
        "guard": former_forecaster(anomaly.forecaster),  # deprecated
    }
    return {f"label.{k}": v for k, v in anomaly.labels.items()} | anomaly.labels | known


def label_matcher(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the matcher of exactly these labels; labels whose name ``--match`` cannot write are left out."""
    return {
        (f"label.{name}" if name in PROPERTIES else name): escape_glob(value)
        for name, value in sorted(labels.items())
        if name.isprintable() and "=" not in name
    }


def escape_glob(text: str) -> str:
    """Return the glob that matches ``text`` only; characters that cannot be printed become ``?``."""
    glob = "".join(f"[{c}]" if c in "*?[" else c if c.isprintable() else "?" for c in text)
    if glob.startswith("!"):
        return "\\" + glob
    return f"[\\]{glob[1:]}" if glob.startswith("\\") else glob


def relative_deviation(anomaly: Anomaly) -> float:
    """Return |observed - expected| / |expected| of the leading channel at the peak.

    Infinite if either number is missing or the expected value is 0. A quantity that is a share of the value
    is compared as it is.
    """
    at = anomaly.leading_channel
    observed, expected = anomaly.observed[at], anomaly.expected[at]
    if not (math.isfinite(observed) and math.isfinite(expected)):
        return math.inf
    if anomaly.relative:
        return abs(observed - expected)
    if expected == 0.0:
        return math.inf
    return abs(observed - expected) / abs(expected)


def compile_matcher(match: Mapping[str, Any]) -> Matcher:
    """Return a test of the fields of an anomaly.

    Every key must match. A key that the anomaly lacks has the value "".
    """
    tests = [
        (key, _any_of(tuple([value] if isinstance(value, str) else value))) for key, value in match.items()
    ]
    return lambda known: all(test(known.get(key, "")) for key, test in tests)


@lru_cache(4096)
def _any_of(globs: tuple[str, ...]) -> Callable[[str], bool]:
    # A literal "!" at the beginning is written as "\\!".
    wanted = [
        _regex(g.removeprefix("\\") if g.startswith("\\!") else g) for g in globs if not g.startswith("!")
    ]
    refused = [_regex(g[1:]) for g in globs if g.startswith("!")]

    def test(text: str) -> bool:
        return (not wanted or any(p.match(text) for p in wanted)) and not any(p.match(text) for p in refused)

    return test


def _regex(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))
