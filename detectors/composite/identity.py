"""Identity of a detector: a digest of the values that determine its verdicts and its state.

The digest is stored with snapshots, anomalies and model rows, so the hashed text is a format. Its record
names and keys are those of forewatch 0.1.0, whatever the classes and fields are called in Python. A key that
is added later is written only if its value is not the default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from detectors.base import DetectorSpec, Limits
from detectors.composite.tiers import Tier
from detectors.stages.score_fusion import TrackGroup


def digest_of(*values: Any) -> Any:
    """Return the SHA-256 object of the canonical text of ``values``.

    The caller can update it with further bytes, such as weights.
    """
    return hashlib.sha256(canonical_text(values).encode())


def canonical_text(value: Any) -> str:
    """Return the canonical text of a number, string, tuple or record of ``_RECORDS``.

    Raises:
        TypeError: ``value`` is of another type, whose text could change with its Python names.
    """
    if isinstance(value, tuple):
        items = ", ".join(map(canonical_text, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if type(value) in _RECORDS:
        name, keys = _RECORDS[type(value)]
        parts = [f"{key}={canonical_text(getattr(value, field))}" for key, field in keys.items()]
        parts += [
            f"{key}={canonical_text(getattr(value, key))}"
            for key, default in _ADDED_KEYS.get(type(value), {}).items()
            if getattr(value, key) != default
        ]
        return f"{name}({', '.join(parts)})"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(f"{type(value).__name__} has no canonical text")


def _same(*keys: str) -> Mapping[str, str]:
    return {key: key for key in keys}


#: Class → (name of the record, {key: field}). Classes and fields can be renamed, names and keys cannot.
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
        {
            "groups": "track_groups",
            "bins": "calibration_bins",
            "ring": "seasonality_rows",
            "levels": "seasonality_levels",
            "repeats": "min_period_repeats",
            "recent": "cycle_rows",
            "seen": "novelty_values",
            "bins_of_day": "profile_bins",
            "shapes": "discord_blocks",
            "windows": "discord_window_periods",
            "cycles": "cycle_discord_blocks",
            "lags": "lags",
            "hidden": "readout_mixtures",
            "memory": "input_memory_rows",
            "horizons": "horizons",
            "spans": "error_span_periods",
        },
    ),
}

#: Class → {key: default} of the keys that were added after 0.1.0. They follow the others.
_ADDED_KEYS: dict[type, Mapping[str, Any]] = {
    DetectorSpec: {"decision": "surprise", "timezone": "", "interval": 0.99, "holidays": ""}
}
