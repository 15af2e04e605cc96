"""Detection by the error of each forecaster alone.

This is the part "detection" of ``benchmarks.forecasters``.
There is one set of weights a forecaster, fitted to the ends of all training parts, and then one causal pass.
The score is the error one step ahead, plain and averaged over a period of the training part, each calibrated
by its own past. No other track and no forecaster selection takes part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.forecasters.base import Forecaster
from detectors.stages.tail_calibration import TailCalibration
from detectors.training.fit import Scaler, TrainingSettings, fit, untrainable
from pipeline.evaluate import layouts
from pipeline.evaluate.accuracy_metrics import ucr_hit
from pipeline.evaluate.layouts import Labelled
from pipeline.evaluate.vus import find_length, vus_pr

Values = NDArray[np.float64]

TRAINING_ROWS = 500  # at the end of each training part that all forecasters learn from
CHUNK_ROWS = 256  # rows of one forward call; the state is carried
BATCH_SERIES = 16  # series of one batch
CALIBRATION_BINS = 64
VUS, UCR = "tsb-ad-u-r", "ucr"


def read(data: Path, most: int | None) -> dict[str, list[Labelled]]:
    """Return the series of both sets that a forecaster can learn from, shortest first.

    They have at least ``TRAINING_ROWS`` training rows, the last of them not constant.
    """
    found = {}
    for name in (VUS, UCR):
        series = [entry.read() for entry in layouts.find(data / name, "labelled", most)]
        found[name] = sorted(
            (
                one
                for one in series
                if one.warm_up >= TRAINING_ROWS and not untrainable(_training_part(one)[None])
            ),
            key=len,
        )
    return found


def detection(
    forecaster: Forecaster, sets: dict[str, list[Labelled]], settings: TrainingSettings
) -> dict[str, float]:
    """Return VUS-PR on tsb-ad-u-r and accuracy on UCR.

    Both are of the plain and of the averaged error.
    """
    fit(forecaster, np.stack([_training_part(one) for series in sets.values() for one in series]), settings)
    figures = {}
    for name, series in sets.items():
        judged = [
            [_accuracy(name, one, score) for score in scores] for one, scores in _scores(forecaster, series)
        ]
        figures |= dict(
            zip(
                (f"{name} plain", f"{name} averaged"),
                np.nanmean(np.array(judged, float), axis=0).round(3).tolist(),
                strict=True,
            )
        )
    return figures


def _filled(series: Labelled) -> Values:
    """Return the values (T,), missing ones replaced by the last one."""
    values = series.values[:, 0].astype(float)
    return np.nan_to_num(
        values[np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))]
    )


def _training_part(series: Labelled) -> Values:
    return _filled(series)[series.warm_up - TRAINING_ROWS : series.warm_up]


def _accuracy(name: str, series: Labelled, score: Values) -> float:
    if name == UCR:
        return ucr_hit(score, series.label, series.warm_up)
    after = slice(series.warm_up, None)
    return vus_pr(score[after], series.label[after], find_length(series.values[:, 0]))


def _scores(
    forecaster: Forecaster, series: list[Labelled]
) -> Iterator[tuple[Labelled, tuple[Values, Values]]]:
    """Yield each series with the surprise of its plain and of its averaged error."""
    for start in range(0, len(series), BATCH_SERIES):
        batch = series[start : start + BATCH_SERIES]
        values = np.stack([np.pad(_filled(one), (0, len(batch[-1]) - len(one)), "edge") for one in batch])
        scaler = Scaler.of(np.stack([_training_part(one) for one in batch]))
        errors = _errors(forecaster, scaler.apply(values))
        for one, error in zip(batch, errors, strict=True):
            plain = error[: len(one)]
            period = find_length(_training_part(one))
            yield one, (_surprise(plain), _surprise(_averaged(plain, period)))


def _errors(forecaster: Forecaster, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the absolute errors (B, T) of the forecasts one step ahead.

    ``x`` is (B, T); the error of the first row is 0.
    """
    ahead = np.empty_like(x)
    state = forecaster.initial(len(x))
    with torch.no_grad():
        for start in range(0, x.shape[1], CHUNK_ROWS):
            part = torch.from_numpy(x[:, start : start + CHUNK_ROWS])[..., None]
            parameters, state = forecaster(part, state)
            ahead[:, start : start + CHUNK_ROWS] = forecaster.output.location(parameters)[..., 0]
    error = np.zeros_like(x)
    error[:, 1:] = np.nan_to_num(np.abs(x[:, 1:] - ahead[:, :-1]), posinf=1e6)
    return error


def _averaged(error: NDArray[np.float32], period: int) -> NDArray[np.float32]:
    """Return the exponentially weighted mean over ``period`` rows."""
    mean, out = 0.0, np.empty_like(error)
    for i, value in enumerate(error.tolist()):
        mean += (value - mean) / min(i + 1, period)
        out[i] = mean
    return out


def _surprise(error: NDArray[np.float32]) -> Values:
    calibration = TailCalibration((0.9,), CALIBRATION_BINS)
    surprise, _ = calibration.run(
        calibration.initial(1), np.zeros(len(error), np.int32), error[:, None].astype(np.float32), 0, 4.0
    )
    return surprise[:, 0].astype(float)
