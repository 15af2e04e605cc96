"""A shift change at 06:00 on working days is forecast by a network with calendar inputs."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from detectors import DetectorSpec, build
from detectors.forecasters.network_spec import NetworkSpec, with_inputs
from detectors.local_time import holiday_days, local_ns
from detectors.training.sequences import FinetuneSettings
from pipeline.training.dataset import TrainingData
from pipeline.training.trainer import TrainConfig, train_stream

EVERY = 3_600 * 10**9
PER_DAY, DAYS, SERIES = 24, 84, 8
ZONE, COUNTRY = "Europe/Berlin", "DE"
BEGIN = int(datetime(2025, 2, 24, tzinfo=ZoneInfo(ZONE)).timestamp()) * 10**9  # a Monday of winter
#: The days that are measured begin here; 1 May, a holiday, is a Thursday, and summer time has begun.
MEASURED = 60 * PER_DAY


def plant() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (T,), values (T, S), and rows at which the shift begins or would begin (T,)."""
    rng = np.random.default_rng(4)
    time = BEGIN + np.arange(DAYS * PER_DAY, dtype=np.int64) * EVERY
    wall = local_ns(ZONE, time)
    day, hour = wall // (PER_DAY * EVERY), wall // EVERY % PER_DAY
    works = ((day + 3) % 7 < 5) & ~np.isin(day, holiday_days(COUNTRY))
    on = works & (hour >= 6) & (hour < 18)
    noise = np.zeros((len(time), SERIES))
    for row in range(1, len(time)):
        noise[row] = 0.6 * noise[row - 1] + rng.normal(0, 1, SERIES)
    level = 10.0 * np.arange(SERIES)
    return time, level + np.where(on, 40.0, 0.0)[:, None] + noise, hour == 6


def data_of(time: np.ndarray, values: np.ndarray) -> TrainingData:
    """Return the series one after the other."""
    n, s = values.shape
    names, first = [f"press-{i}" for i in range(s)], np.arange(s + 1, dtype=np.int64) * n
    return TrainingData(
        "plant",
        ("value",),
        names,
        first,
        np.tile(time, s),
        values.T.reshape(-1, 1).copy(),
        np.zeros(n * s, np.int32),
        np.full(n * s, EVERY),
        np.zeros(n * s, np.bool_),
        np.ones(n * s, np.bool_),
        [],
    )


def errors_of(weights: dict[str, np.ndarray] | None, data: TrainingData) -> np.ndarray:
    """Return the mean size of the forecast error at each measured row (T,)."""
    detector = build(DetectorSpec(decision="usual_range", timezone=ZONE), weights)
    _, verdicts = detector.step(detector.initial(SERIES), data.points(clean=True))
    error = np.abs(verdicts.expected[:, 0] - data.values[:, 0])
    return error.reshape(SERIES, -1)[:, MEASURED:].mean(0)


def test_a_shift_change_is_forecast_but_not_on_holidays() -> None:
    time, values, begins = plant()
    data, at = data_of(time, values), begins[MEASURED:]
    network = with_inputs(NetworkSpec("gru", hidden=24), ["calendar", "lags"], ZONE, COUNTRY)
    config = TrainConfig(DetectorSpec(timezone=ZONE), tuning=FinetuneSettings(epochs=12), network=network)
    without, found = errors_of(None, data), errors_of(train_stream(data, config).weights, data)
    assert without[at].mean() > 20
    assert found[at].mean() < 0.3 * without[at].mean()
    assert found[~at].mean() < without[~at].mean()
    day = np.arange(at.sum())  # from Friday, 25 April, on
    rest = np.isin((day + 4) % 7, [5, 6])
    rest[6] = True  # 1 May
    assert found[at][rest].max() < 5, "no change is forecast on weekends and on a holiday"
