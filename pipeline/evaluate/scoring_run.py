"""Scores of a detector, row by row, and the two yardsticks of every table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluate.layouts import Labelled
from pipeline.services.dataframe import score_frame

#: Seed of the random yardstick and of every test; the detectors draw no random numbers.
SEED = 0
#: Columns of the scored frame beside the channels; the stock preset knows volumes by the name of the channel.
RESERVED = ("time", "series")


@dataclass(slots=True)
class Scores:
    """Verdicts on the n rows of a series of C channels.

    ``dropped``: number of rows that the pipeline dropped because they are late or repeat a time; their
    surprise is 0.

    surprise (n,) −log10 of the tail probability, flag (n,) over the product's own threshold,
    expected, lower, upper (n, C) in the units of the input (NaN: none), rarity (n,) −log10 of the calibrated
    probability (NaN: unknown)
    """

    surprise: NDArray[np.float64]
    flag: NDArray[np.bool_]
    expected: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    dropped: int = 0
    rarity: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @staticmethod
    def silent(series: Labelled) -> Scores:
        """Return scores without any surprise or flag."""
        n, channels = series.values.shape
        expected, lower, upper = (np.full((n, channels), np.nan, np.float32) for _ in range(3))
        return Scores(np.zeros(n), np.zeros(n, bool), expected, lower, upper)

    @property
    def score(self) -> NDArray[np.float64]:
        """Return the score (n,) in [0, 1]: one minus the tail probability."""
        return np.asarray(-np.expm1(-np.log(10.0) * self.surprise))


def score_series(
    batch: Sequence[Labelled],
    detector: str,
    preset: str,
    threshold: str = "static",
    decision: str = "usual_range",
    weights: Mapping[str, NDArray[Any]] | None = None,
    alarm_rate: float | None = None,
) -> list[Scores]:
    """Score series of the same channels side by side, on the code path of the daemon.

    Rows enter in turn: the first of each series, then the second, and so on. The surprise ranks the rows, and
    the flags are those of ``decision``.

    Args:
        batch: The series.
        detector: Name of the detector.
        preset: Kind of the numbers.
        threshold: Rule for the surprise of an alarm.
        decision: Rule that decides an alarm.
        weights: Weights of a version; None for the packaged ones.
        alarm_rate: Share of normal points that may be flagged; None for the default.
    """
    ranks = np.concatenate([np.arange(len(series)) for series in batch])
    number = np.repeat(np.arange(len(batch)), [len(series) for series in batch])
    order = np.lexsort((number, ranks))
    channels = [f"{name} of the set" if name in RESERVED else name for name in batch[0].channels]
    frame = pd.DataFrame(np.concatenate([series.values for series in batch])[order], columns=channels)
    frame["time"] = np.concatenate([series.time for series in batch])[order].astype("datetime64[ns]")
    frame["series"] = pd.Categorical.from_codes(number[order], pd.Index([str(i) for i in range(len(batch))]))
    keys: dict[str, Any] = {"detector": detector, "preset": preset, "threshold": threshold}
    keys |= {"decision": decision} if alarm_rate is None else {"decision": decision, "alarm_rate": alarm_rate}
    verdicts = score_frame(frame, (channels, "time", "series"), keys, weights)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    ends = np.cumsum([len(series) for series in batch])
    return [
        _scores(verdicts.iloc[back[end - len(series) : end]], channels, decision)
        for series, end in zip(batch, ends, strict=True)
    ]


def _scores(verdicts: pd.DataFrame, channels: Sequence[str], decision: str) -> Scores:
    surprise = verdicts["surprise"].to_numpy(np.float64)
    dropped = np.isnan(surprise)

    def band(part: str) -> NDArray[np.float32]:
        names = [part] if len(channels) == 1 else [f"{part}:{channel}" for channel in channels]
        return verdicts[names].to_numpy(np.float32)

    flag = verdicts["flag"].to_numpy(bool)
    return Scores(
        np.where(dropped, 0.0, surprise),
        flag,
        band("expected"),
        band("lower"),
        band("upper"),
        int(dropped.sum()),
        _rarity(verdicts, decision),
    )


def _rarity(verdicts: pd.DataFrame, decision: str) -> NDArray[np.float64]:
    column = "rarity" if decision == "usual_range" else "surprise"
    return verdicts[column].to_numpy(np.float64)


def random(series: Labelled) -> Scores:
    """Return random scores: uniform, flagged once in ten thousand rows."""
    scores = Scores.silent(series)
    rng = np.random.default_rng(
        [SEED, int(md5(series.name.encode(), usedforsecurity=False).hexdigest()[:8], 16)]
    )
    scores.surprise = -np.log10(1.0 - rng.random(len(series)))
    scores.flag = scores.surprise >= 4.0
    return scores


def difference(series: Labelled) -> Scores:
    """Return |x_t − x_{t−1}|, the largest over channels, flagged from 4 on.

    The unit is its standard deviation over the warm-up. It makes series of different scale comparable for
    the common threshold of NAB, and changes no ranking within a series.
    """
    # beside a missing value: no step
    step = np.nan_to_num(np.abs(np.diff(series.values, axis=0, prepend=series.values[:1])))
    scale = np.std(step[: max(series.warm_up, 2)], axis=0)
    scores = Scores.silent(series)
    scores.surprise = np.max(step / np.where(scale > 0, scale, 1.0), axis=1, initial=0.0)
    scores.flag = scores.surprise >= 4.0
    return scores


YARDSTICKS: dict[str, Callable[[Labelled], Scores]] = {"random": random, "difference": difference}
