"""What an aggregate computes, worked out once from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.decode import Columns
from pipeline.decode.fields import Reduction, reductions_of
from pipeline.windows.aggregation_kernels import COUNT, FIRST, LAST, MAX, MEAN, MIN, NUNIQUE, ROWS, SUM

_KINDS = {
    "sum": SUM,
    "count": COUNT,
    "mean": MEAN,
    "nunique": NUNIQUE,
    "last": LAST,
    "close": LAST,
    "open": FIRST,
}
_KINDS |= {"min": MIN, "low": MIN, "max": MAX, "high": MAX}
#: What these functions say of no record at all; the others say nothing.
_OF_NOTHING = (ROWS, COUNT, NUNIQUE, SUM)


@dataclass(frozen=True, slots=True)
class AggregationPlan:
    """What is computed, worked out once from the configuration; times in ns, ``idle`` in intervals."""

    every: int
    lateness: int
    idle: int
    reductions: tuple[Reduction, ...]
    kinds: NDArray[np.int64]
    value_fields: tuple[str, ...]

    @staticmethod
    def of(stream: Stream) -> AggregationPlan:
        """Raises AssertionError for a stream without an aggregate."""
        assert stream.aggregate is not None
        every = to_nanoseconds(stream.aggregate.every)
        reductions = reductions_of(stream)
        return AggregationPlan(
            every=every,
            lateness=to_nanoseconds(stream.lateness),
            idle=max(1, to_nanoseconds(stream.idle_after) // every),
            reductions=tuple(reductions),
            kinds=np.array([ROWS if r.field is None else _KINDS[r.kind] for r in reductions], np.int64),
            value_fields=tuple(stream.format.chosen.value_fields.values()),
        )

    @property
    def of_nothing(self) -> NDArray[np.float64]:
        """The values of an interval without a record, (C,)."""
        return np.where(np.isin(self.kinds, _OF_NOTHING), 0.0, np.nan)

    def sources(self, columns: Columns) -> NDArray[np.float64]:
        """The input of every function, (N, C); NaN counts for nothing."""
        out = np.zeros((len(columns), len(self.kinds)))
        for c, reduction in enumerate(self.reductions):
            field = reduction.field
            if field is None:
                continue
            if reduction.fingerprint:
                out[:, c] = np.where(
                    columns.extra[f"distinct {field}"] == 0, np.nan, 1.0 if self.kinds[c] == COUNT else np.nan
                )
            elif field in self.value_fields:
                out[:, c] = columns.values[:, self.value_fields.index(field)]
            else:
                out[:, c] = columns.extra[field]
        return out
