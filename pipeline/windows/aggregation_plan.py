"""Plan of an aggregation, computed once from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.decode import Columns
from pipeline.decode.fields import Reduction, reductions_of
from pipeline.windows.aggregation_kernels import (
    KIND_COUNT,
    KIND_FIRST,
    KIND_LAST,
    KIND_MAX,
    KIND_MEAN,
    KIND_MIN,
    KIND_NUNIQUE,
    KIND_ROWS,
    KIND_SUM,
)

_KINDS = {
    "sum": KIND_SUM,
    "count": KIND_COUNT,
    "mean": KIND_MEAN,
    "nunique": KIND_NUNIQUE,
    "last": KIND_LAST,
    "close": KIND_LAST,
    "open": KIND_FIRST,
}
_KINDS |= {"min": KIND_MIN, "low": KIND_MIN, "max": KIND_MAX, "high": KIND_MAX}
#: Functions that are 0 without a record; the others are missing.
_ZERO_WITHOUT_RECORDS = (KIND_ROWS, KIND_COUNT, KIND_NUNIQUE, KIND_SUM)


@dataclass(frozen=True, slots=True)
class AggregationPlan:
    """Functions and times of an aggregation; times in ns, ``idle`` in intervals.

    ``silence`` is the delay that records of a partition may have together.
    """

    every: int
    lateness: int
    idle: int
    silence: int
    reductions: tuple[Reduction, ...]
    kinds: NDArray[np.int64]
    value_fields: tuple[str, ...]

    @staticmethod
    def of(stream: Stream) -> AggregationPlan:
        """Return the plan of a stream. Raises AssertionError for one without an aggregate."""
        assert stream.aggregate is not None
        every = to_nanoseconds(stream.aggregate.every)
        reductions = reductions_of(stream)
        return AggregationPlan(
            every=every,
            lateness=to_nanoseconds(stream.lateness),
            idle=max(1, to_nanoseconds(stream.idle_after) // every),
            silence=every if (given := stream.aggregate.silence) is None else to_nanoseconds(given),
            reductions=tuple(reductions),
            kinds=np.array([KIND_ROWS if r.field is None else _KINDS[r.kind] for r in reductions], np.int64),
            value_fields=tuple(stream.format.chosen.value_fields.values()),
        )

    @property
    def empty_values(self) -> NDArray[np.float64]:
        """Values of an interval without a record, (C,)."""
        return np.where(np.isin(self.kinds, _ZERO_WITHOUT_RECORDS), 0.0, np.nan)

    @property
    def tells_silence(self) -> bool:
        """True if an interval without a record has a point."""
        return bool((self.empty_values == 0).any())

    def sources(self, columns: Columns) -> NDArray[np.float64]:
        """Return the input of every function, (N, C); NaN is ignored."""
        out = np.zeros((len(columns), len(self.kinds)))
        for c, reduction in enumerate(self.reductions):
            field = reduction.field
            if field is None:
                continue
            if reduction.fingerprint:
                out[:, c] = np.where(
                    columns.extra[f"distinct {field}"] == 0,
                    np.nan,
                    1.0 if self.kinds[c] == KIND_COUNT else np.nan,
                )
            elif field in self.value_fields:
                out[:, c] = columns.values[:, self.value_fields.index(field)]
            else:
                out[:, c] = columns.extra[field]
        return out
