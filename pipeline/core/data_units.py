"""Amounts of data in units that people read: 36.8 MB instead of 36,780,000 B.

Only units of data have such prefixes here. All other units are those of the config.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.core.types import Anomaly, DeviationContext, DeviationCourse

#: Unit of the config → the unit that takes a prefix.
_UNITS = {
    "B": "B",
    "byte": "B",
    "bytes": "B",
    "B/s": "B/s",
    "bytes/s": "B/s",
    "bit": "bit",
    "bits": "bit",
    "bit/s": "bit/s",
    "bits/s": "bit/s",
    "bps": "bps",
}
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
#: Smallest amount with a prefix: below it all digits are as short.
MIN_SCALED = 10_000.0
_Record = TypeVar("_Record", DeviationContext, DeviationCourse)


def data_unit(unit: str | None, size: float) -> tuple[str | None, float]:
    """Return the unit for numbers of a size, and the factor from the given unit.

    Args:
        unit: Unit of the numbers, None for none.
        size: Size of the numbers.
    """
    if unit not in _UNITS or not math.isfinite(size) or abs(size) < MIN_SCALED:
        return unit, 1.0
    power = min(int(math.log10(abs(size)) // 3), len(_PREFIXES) - 1)
    return f"{_PREFIXES[power]}{_UNITS[unit]}", 1000.0**-power


def in_data_unit(anomaly: Anomaly, unit: str | None) -> tuple[Anomaly, str | None]:
    """Return an anomaly in a unit that people read, and this unit.

    A value that repeats keeps all its digits: it is searched for.

    Args:
        anomaly: the anomaly, which is not changed.
        unit: unit of the leading channel.
    """
    at, context = anomaly.leading_channel, anomaly.context
    observed, low, high = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    value = None if context is None else context.value
    stated = (value,) if anomaly.relative else (observed, low if observed < low else high, value)
    # The smallest number decides: a larger one keeps its digits, and a smaller one would lose them.
    sizes = [abs(x) for x in stated if x and math.isfinite(x)]
    shown, factor = data_unit(unit, min(sizes, default=0.0))
    if factor == 1.0 or anomaly.cause == "flatline":
        return anomaly, unit
    of_quantity = 1.0 if anomaly.relative else factor
    numbers: dict[str, Any] = {
        name: [x * of_quantity if i == at else x for i, x in enumerate(getattr(anomaly, name))]
        for name in ("observed", "lower", "upper", "expected")
    }
    course = _scaled(anomaly.course, ("lowest", "highest", "last"), factor)
    context = _scaled(context, ("value", "recent_mean", "implied"), factor)
    return replace(anomaly, **numbers, context=context, course=course), shown


def _scaled(record: _Record | None, names: tuple[str, ...], factor: float) -> _Record | None:
    """Return a record with some of its numbers times a factor."""
    if record is None:
        return None
    values = {name: getattr(record, name) for name in names}
    scaled: dict[str, Any] = {name: None if x is None else x * factor for name, x in values.items()}
    return replace(record, **scaled)
