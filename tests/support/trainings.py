"""A stream with a past, for tests of what learns from it: history segments as the daemon writes them, and the
config to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from detectors import build
from detectors.base import Points, Verdicts
from pipeline.config.schema import Config
from pipeline.core.types import Partition
from pipeline.models.champion import champion_of, detector_spec
from storage.history import parquet
from storage.history.writer import HistoryWriter
from storage.sql.database import Database

MINUTE = 60_000_000_000
BEGIN = 1_760_000_000_000_000_000


def config_of(url: str, folder: Path, detector: str = "standard", **retraining: Any) -> Config:
    """One stream, ``plant``, of one channel, whose history and models lie in ``folder``."""
    settings = {
        "schedule": None,
        "shadow": "0s",
        "post_promotion_check": "0s",
        "epochs": 2,
        "lease": "3s",
        "cpu_after": "2s",
        **retraining,
    }
    stream = {
        "source": {"memory": {"name": "plant"}},
        "format": {"json": {"series": "sensor", "time": "ts", "values": ["temperature"]}},
        "every": "1m",
        "detector": detector,
        "retraining": settings,
    }
    storage = {"history_path": str(folder / "history"), "models_path": str(folder / "models")}
    return Config.model_validate(
        {"database": url, "storage": storage, "http": None, "streams": {"plant": stream}}
    )


def tide(points: int, seed: int = 0, period: float = 180.0) -> np.ndarray:
    """(points,) a wave with noise."""
    rng = np.random.default_rng(seed)
    return 20 + 4 * np.sin(2 * np.pi * np.arange(points) / period + seed) + rng.normal(0, 0.3, points)


def henon(rng: np.random.Generator, sign: float, points: int = 1500) -> np.ndarray:
    """(points,) Hénon's map, upright or upside down: a rule that the packaged LSTM does not know, and noise."""
    x = np.zeros(points)
    x[:2] = rng.normal(0, 0.1, 2)
    for t in range(2, points):
        x[t] = 1 - 1.4 * x[t - 1] ** 2 + 0.3 * x[t - 2]
    return sign * x + rng.normal(0, 0.02, points)


def write_history(
    config: Config,
    series: Mapping[str, np.ndarray],
    *,
    begin: int = BEGIN,
    offset: int = 0,
    epoch: int = 1,
    database: Database | None = None,
    microseconds: float = 5.0,
) -> Verdicts:
    """Score ``series`` (name → values, one a minute) and write the history; the verdicts, series by series.

    The detector is the champion of ``database``, or (None) what comes with forewatch.
    """
    stream = config.streams["plant"]
    if database is None:
        detector = build(detector_spec(stream))
        model = detector.version
    else:
        champion = champion_of(database, "plant", stream)
        detector, model = champion.detector, champion.provenance.model_version
    lengths = [len(values) for values in series.values()]
    slot = np.repeat(np.arange(len(series), dtype=np.int32), lengths)
    time = np.concatenate([begin + np.arange(n) * MINUTE for n in lengths])
    values = np.concatenate(list(series.values()))[:, None]
    points = Points(slot, time, values, np.zeros(len(slot), np.int32), np.full(len(slot), MINUTE, np.int64))
    _, verdicts = detector.step(detector.initial(len(series)), points)
    per_point = {name: getattr(verdicts, name) for name in ("score", "surprise", "rarity", "flag")}
    per_point["guard"] = verdicts.forecaster
    per_point |= {
        "every": points.every,
        "missed": points.missed,
        "microseconds": np.full(len(slot), microseconds, np.float32),
    }
    per_channel = {
        "value": values,
        "expected": verdicts.expected,
        "lower": verdicts.lower,
        "upper": verdicts.upper,
    }
    offsets = offset + np.arange(len(slot), dtype=np.int64)
    table = parquet.rows(offsets, time, slot, pa.array(list(series)), ["temperature"], per_point, per_channel)
    table = table.append_column("model", parquet.constant(model, len(slot)))
    writer = HistoryWriter(config.history_path, "plant")
    partition = Partition("plant", 0)
    writer.open(partition, "log", epoch, offset)
    writer.append(partition, offset, offset + len(slot), table)
    assert writer.barrier(partition, offset + len(slot))
    writer.close()
    return verdicts
