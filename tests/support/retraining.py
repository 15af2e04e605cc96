"""Streams whose whole history is known, for the tests of retraining: days of ten-minute points, one incident."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from detectors import build
from detectors.base import Detector, Points, Verdicts
from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records
from pipeline.training.dataset import TrainingData, from_history, take_points
from pipeline.training.quarantine import ReviewLabel
from storage.history import parquet
from storage.history.writer import HistoryWriter

STEP = 600 * 10**9
DAY = 144  # rows

STREAM = Stream.model_validate(
    {
        "source": {"memory": {}},
        "format": {"json": {"series": "s", "time": "t", "time_unit": "s", "values": ["v"]}},
        "detector": "light",
        "every": "10m",
        "decision": "surprise",  # alarms on short series, whose usual ranges are not known yet
    }
)


def sensors(
    series: int, days: int, shift_day: float | None = None, size: float = 25.0, seed: int = 0
) -> np.ndarray:
    """(S, T): a daily wave and noise; from ``shift_day`` on series 0 is ``size`` higher (the noise has size
    1)."""
    rng, t = np.random.default_rng(seed), np.arange(days * DAY)
    x = np.array(
        [50 + 10 * np.sin(2 * np.pi * t / DAY + i) + rng.normal(0, 1, len(t)) for i in range(series)]
    )
    if shift_day is not None:
        x[0, round(shift_day * DAY) :] += size
    return x


def points_of(x: np.ndarray, first_row: int = 0) -> Points:
    """``x`` (S, T) as points, series by series."""
    series, rows = x.shape
    time = np.tile((first_row + np.arange(rows)) * STEP, series).astype(np.int64)
    slot = np.repeat(np.arange(series, dtype=np.int32), rows)
    return Points(slot, time, x.reshape(-1, 1), np.zeros(x.size, np.int32), np.full(x.size, STEP, np.int64))


def write_history(
    folder: Path, points: Points, verdicts: Verdicts, names: Sequence[str], stream: str = "plant"
) -> str:
    """Write the history that a daemon would write of them, as one partition; return the path."""
    order = np.argsort(points.time, kind="stable")
    p, v = take_points(points, order), verdicts
    per_point = {
        "score": v.score[order],
        "surprise": v.surprise[order],
        "flag": v.flag[order],
        "guard": v.forecaster[order],
    }
    per_point |= {"every": p.every, "missed": p.missed}
    per_channel = {
        "value": p.values,
        "expected": v.expected[order],
        "lower": v.lower[order],
        "upper": v.upper[order],
    }
    offset = np.arange(len(order), dtype=np.int64)
    table = parquet.rows(
        offset, p.time, p.slot, pa.array(list(names), pa.string()), ["v"], per_point, per_channel
    )
    writer, partition = HistoryWriter(str(folder), stream), Partition("t", 0)
    writer.open(partition, "log", 1, 0)
    for at in range(0, len(order), 5000):
        writer.append(partition, at, min(at + 5000, len(order)), table.slice(at, 5000))
    writer.close()
    return str(folder)


def lived(
    folder: Path, detector: Detector, x: np.ndarray, review_labels: Sequence[ReviewLabel] = ()
) -> TrainingData:
    """The training data of a stream that ``detector`` has watched, by way of its history on disk."""
    points = points_of(x)
    _, verdicts = detector.step(detector.initial(len(x)), points)
    path = write_history(folder, points, verdicts, [f"s{i}" for i in range(len(x))])
    return from_history(path, "plant", ["v"], review_labels)


def scorer(stream: Stream) -> StreamScorer:
    detector = build(detector_spec(stream))
    return StreamScorer(provenance("plant", stream, detector), stream, detector)


def batches(x: np.ndarray, rows: int = 6, begin: int = 0) -> Iterator[Records]:
    """(S, T) as records in the order of time, ``rows`` times at once."""
    series, total = x.shape
    for first in range(0, total, rows):
        lines = [
            json.dumps({"s": f"s{i}", "t": (1_000_000 + begin + t) * 600, "v": x[i, t]}).encode()
            for t in range(first, min(first + rows, total))
            for i in range(series)
        ]
        at = first * series
        offsets = np.arange(at, at + len(lines))
        yield Records(
            Partition("t", 0),
            at,
            at + len(lines),
            offsets,
            np.full(len(lines), -1),
            lines,
            [None] * len(lines),
        )
