"""Names of detectors: a digest of the values that decide verdicts and state, independent of class and field
names in Python.

The text that is hashed is a format (it stands in stored snapshots, anomalies and model rows): the record
names and keys below are those of forewatch 0.1.0 and stay, whatever the classes are called. A key that is
added later is written only where it differs from its default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from detectors.base import DetectorSpec, Limits
from detectors.composite.tiers import Tier
from detectors.stages.score_fusion import TrackGroup


def digest_of(*values: Any) -> Any:
    """Return a SHA-256 object fed with the canonical text of ``values``; the caller may add bytes (weights)
    to it.
    """
    return hashlib.sha256(canonical(values).encode())


def canonical(value: Any) -> str:
    """Return the canonical text of numbers, strings, tuples and the records of ``_RECORDS``.

    Raises TypeError for anything else, so that no value gets an accidental name.
    """
    if isinstance(value, tuple):
        parts = ", ".join(map(canonical, value))
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    if type(value) in _RECORDS:
        name, keys = _RECORDS[type(value)]
        return (
            f"{name}({', '.join(f'{key}={canonical(getattr(value, field))}' for key, field in keys.items())})"
        )
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(f"{type(value).__name__} has no canonical text")


def _same(*keys: str) -> Mapping[str, str]:
    return {key: key for key in keys}


#: Class → (name of the record, {key: field}). Only the right-hand sides may change.
_RECORDS: dict[type, tuple[str, Mapping[str, str]]] = {
    Limits: ("Limits", _same("low", "high")),
    DetectorSpec: (
        "DetectorSpec",
        _same(
            "tier",
            "preset",
            "channels",
            "limits",
            "alarm_rate",
            "direction",
            "threshold",
            "min_points",
            "min_deviation",
        ),
    ),
    TrackGroup: (
        "Group",
        _same(
            "tracks",
            "scale",
            "quantile",
            "cap",
            "slope",
            "bend",
            "predictable",
            "certain",
            "least",
            "after",
            "repeats",
            "own",
        ),
    ),
    Tier: (
        "Tier",
        _same(
            *(
                "groups",
                "bins",
                "ring",
                "levels",
                "repeats",
                "recent",
                "seen",
                "bins_of_day",
                "shapes",
                "windows",
                "cycles",
                "lags",
            ),
            *("hidden", "memory", "horizons", "spans"),
        ),
    ),
}
