"""What a detector says of a series, row by row, and the two yardsticks that every table shows beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import md5

import numpy as np
from numpy.typing import NDArray

from detectors import DetectorSpec, build
from detectors.base import Points
from pipeline.evaluate.layouts import Labelled

#: Seed of the random yardstick and of every test; the detectors themselves draw nothing at run time.
SEED = 0
_ROWS_OF_A_BATCH = 20_000


@dataclass(slots=True)
class Scores:
    """Verdicts on the n rows of a series of C channels.

    The pipeline drops rows that are late or repeat a time: ``dropped`` of them, with surprise 0.

    surprise (n,) −log10 of the tail probability, flag (n,) over the product's own threshold,
    expected, lower, upper (n, C) in the units of the input (NaN: none)
    """

    surprise: NDArray[np.float64]
    flag: NDArray[np.bool_]
    expected: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    dropped: int = 0

    @staticmethod
    def silent(series: Labelled) -> Scores:
        """Nothing said about any row."""
        n, channels = series.values.shape
        expected, lower, upper = (np.full((n, channels), np.nan, np.float32) for _ in range(3))
        return Scores(np.zeros(n), np.zeros(n, bool), expected, lower, upper)

    @property
    def score(self) -> NDArray[np.float64]:
        """(n,) in [0, 1]: one minus the tail probability."""
        return np.asarray(-np.expm1(-np.log(10.0) * self.surprise))


def score_series(batch: Sequence[Labelled], detector: str, preset: str) -> list[Scores]:
    """Score series of the same channels side by side, each from its first row to its last, as the engine does."""
    model = build(DetectorSpec(tier=detector, preset=preset, channels=batch[0].channels))
    state, results = model.initial(len(batch)), [Scores.silent(series) for series in batch]
    newest = [np.iinfo(np.int64).min] * len(batch)
    every = np.array([int(np.median(np.diff(series.time[:50]))) if len(series) > 1 else 0 for series in batch])
    step = max(1, _ROWS_OF_A_BATCH // len(batch))
    for start in range(0, max(map(len, batch)), step):
        rows = []
        for slot, series in enumerate(batch):
            time = series.time[start : start + step]
            highest = np.maximum.accumulate(np.concatenate(([newest[slot]], time)))
            rows.append(start + np.flatnonzero(time > highest[:-1]))
            newest[slot] = highest[-1]
        slots = np.repeat(np.arange(len(batch), dtype=np.int32), [len(kept) for kept in rows])
        points = Points(
            slot=slots,
            time=np.concatenate([series.time[kept] for series, kept in zip(batch, rows, strict=True)]),
            values=np.concatenate([series.values[kept] for series, kept in zip(batch, rows, strict=True)]),
            missed=np.zeros(len(slots), np.int32),
            every=every[slots],
        )
        state, verdicts = model.step(state, points)
        for slot, kept in enumerate(rows):
            mine, result = slots == slot, results[slot]
            result.dropped += min(step, max(len(batch[slot]) - start, 0)) - len(kept)
            result.surprise[kept], result.flag[kept] = verdicts.surprise[mine], verdicts.flag[mine]
            result.expected[kept], result.lower[kept], result.upper[kept] = (
                part[mine] for part in (verdicts.expected, verdicts.lower, verdicts.upper)
            )
    return results


def random(series: Labelled) -> Scores:
    """A score that knows nothing: uniform, flagged once in ten thousand rows."""
    scores = Scores.silent(series)
    rng = np.random.default_rng([SEED, int(md5(series.name.encode(), usedforsecurity=False).hexdigest()[:8], 16)])
    scores.surprise = -np.log10(1.0 - rng.random(len(series)))
    scores.flag = scores.surprise >= 4.0
    return scores


def difference(series: Labelled) -> Scores:
    """|x_t − x_{t−1}| in units of its standard deviation over the warm-up, the largest over channels; flagged from 4 on.

    The unit makes series of different scale comparable for NAB's one threshold; within a series it changes no ranking.
    """
    step = np.abs(np.diff(series.values, axis=0, prepend=series.values[:1]))
    scale = np.nanstd(step[: max(series.warm_up, 2)], axis=0)
    scores = Scores.silent(series)
    scores.surprise = np.nanmax(step / np.where(scale > 0, scale, 1.0), axis=1, initial=0.0)
    scores.flag = scores.surprise >= 4.0
    return scores


YARDSTICKS: dict[str, Callable[[Labelled], Scores]] = {"random": random, "difference": difference}
