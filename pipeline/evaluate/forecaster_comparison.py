"""Error, cost, state and memory of all forecasters on recorded values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.training.dataset import TrainingData, from_history

if TYPE_CHECKING:  # torch takes a second to import
    from detectors.forecasters.base import Forecaster

MAX_SERIES: Final = 48
MAX_POINTS: Final = 1200
MIN_POINTS: Final = 200
HORIZON: Final = 4
LEARNING_RATE: Final = 1e-2

#: Name → forecaster and its options.
VARIANTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "seasonal_naive": ("seasonal_naive", {}),
    "exponential": ("exponential", {}),
    "snarimax": ("snarimax", {}),
    "feedforward": ("feedforward", {"output": "student"}),
    "rnn": ("rnn", {}),
    "lstm": ("lstm", {}),
    "deep_lstm": ("lstm", {"layers": 2}),
    "gru": ("gru", {}),
    "encoder_decoder": ("encoder_decoder", {}),
    "attention": ("attention", {}),
    "bidirectional": ("bidirectional", {"horizon": 1}),
}


@dataclass(frozen=True, slots=True)
class ForecasterFigures:
    """Figures of one forecaster.

    error: mean absolute error one step ahead on the held-out end, over that of the last value as the forecast.
    batch_us, step_us: CPU microseconds a point, of many points at once and of one new point of each series
    (None: not causal).
    memory_steps: steps back from which an input still changes the forecast.
    """

    forecaster: str
    causal: bool
    error: float
    batch_us: float
    step_us: float | None
    state_bytes: int
    weights: int
    memory_steps: int
    train_seconds: float


def recorded_data(
    config: Config, stream: str, *, series: int = MAX_SERIES, points: int = MAX_POINTS
) -> TrainingData:
    """Return the newest recorded points of some series of a stream.

    Args:
        config: The whole configuration.
        stream: Name of the stream.
        series: Largest number of series, evenly spread over all of them.
        points: Largest number of points of a series.

    Raises:
        InputError: the stream has events, or no series is long enough.
    """
    chosen = config.streams[stream]
    if chosen.of_events:
        raise InputError(f"stream {stream} has events; forecasters predict numbers")
    data = from_history(config.history_path, stream, chosen.channels, most_points=points)
    long = np.flatnonzero(np.diff(data.first) >= MIN_POINTS)
    if not len(long):
        raise InputError(
            f"stream {stream}: no series has {MIN_POINTS} recorded points; let the daemon run for longer "
            "(a backfill records none)"
        )
    return data.only([int(long[int(at)]) for at in np.linspace(0, len(long) - 1, min(series, len(long)))])


def recorded_values(
    config: Config, stream: str, *, series: int = MAX_SERIES, points: int = MAX_POINTS
) -> NDArray[np.float64]:
    """Return the newest recorded values (S, T) of a stream, NaN where there is none.

    Each channel of a series is a row. Rows in quarantine are missing.

    Args:
        config: The whole configuration.
        stream: Name of the stream.
        series: Largest number of rows.
        points: Largest number of points of a row.

    Raises:
        InputError: the stream has events, or no series is long enough.
    """
    return matrix_of(recorded_data(config, stream, series=series, points=points), series, points)


def matrix_of(data: TrainingData, series: int, points: int) -> NDArray[np.float64]:
    """Return the newest values of channels (S, T), NaN in front of shorter ones.

    Args:
        data: The recorded history.
        series: Largest number of rows.
        points: Largest number of values of a row.
    """
    rows = []
    for first, end in zip(data.first[:-1].tolist(), data.first[1:].tolist(), strict=True):
        if end - first >= MIN_POINTS:
            rows += list(data.clean[max(first, end - points) : end].T)
    if len(rows) > series:
        rows = [rows[int(at)] for at in np.linspace(0, len(rows) - 1, series)]
    longest = max(map(len, rows), default=0)
    out = np.full((len(rows), longest), np.nan)
    for row, values in enumerate(rows):
        out[row, longest - len(values) :] = values
    return out


def compare_forecasters(
    values: NDArray[np.float64],
    names: Sequence[str] = tuple(VARIANTS),
    *,
    epochs: int = 25,
    report: Callable[[str], None] = lambda name: None,
) -> list[ForecasterFigures]:
    """Train each forecaster on all series; measure it on the last fifth of each.

    Args:
        values: Series (S, T), NaN where a value is missing.
        names: Forecasters, of ``VARIANTS``.
        epochs: Most passes over the data.
        report: Called with the name of each forecaster before its training.

    Raises:
        InputError: a name is unknown, or no series can be trained on.
    """
    import torch

    from detectors.training.fit import untrainable

    if unknown := [name for name in names if name not in VARIANTS]:
        raise InputError(f"there is no forecaster {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    torch.set_num_threads(1)
    values = np.delete(values, list(untrainable(values[:, : values.shape[1] * 4 // 5])), 0)
    if not len(values):
        raise InputError("no series can be trained on: they are constant or too short")
    found = []
    for name in names:
        report(name)
        found.append(_figures(name, values, epochs))
    return found


def _figures(name: str, values: NDArray[np.float64], epochs: int) -> ForecasterFigures:
    """Train one forecaster and measure it."""
    import torch

    from detectors.forecasters import build
    from detectors.training.fit import TrainingSettings, fit
    from detectors.training.gradients import reach

    kind, options = VARIANTS[name]
    forecaster, started = build(kind, **{"horizon": HORIZON, **options}), time.process_time()
    result, _ = fit(forecaster, values, TrainingSettings(epochs=epochs, learning_rate=LEARNING_RATE))
    seconds = time.process_time() - started
    batch_us, step_us = cost_of(forecaster)
    return ForecasterFigures(
        name,
        forecaster.causal,
        float(result.mae / result.naive),
        batch_us,
        step_us,
        forecaster.state_bytes(),
        sum(one.numel() for one in forecaster.parameters()),
        reach(forecaster, torch.randn(4, 200, 1)).steps,
        seconds,
    )


def cost_of(forecaster: Forecaster) -> tuple[float, float | None]:
    """Return CPU microseconds a point in two shapes of a call.

    The first is 64 series × 64 points, the second one new point of each of 2,048 series (None where the
    forecaster is not causal).
    """
    import torch

    few = type(forecaster).__name__ == "Snarimax"
    x = torch.randn(4 if few else 64, 64, 1)
    state = forecaster.initial(len(x))
    with torch.no_grad():
        forecaster(x, state)
        start = time.process_time()
        for _ in range(3):
            forecaster(x, state)
        batched = (time.process_time() - start) / (3 * x.shape[0] * x.shape[1]) * 1e6
        if not forecaster.causal:
            return batched, None
        many_rows = torch.randn(16 if few else 2048, 1)
        state, weights = forecaster.initial(len(many_rows)), dict(forecaster.named_parameters())
        state, _ = forecaster.step(weights, state, many_rows)
        start = time.process_time()
        for _ in range(5):
            state, _ = forecaster.step(weights, state, many_rows)
        return batched, (time.process_time() - start) / (5 * len(many_rows)) * 1e6
