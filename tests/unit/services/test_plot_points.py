"""Range of a chart around an anomaly, on a real recorded history."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.durations import DAY_NS, SECOND_NS
from pipeline.core.types import Partition
from pipeline.services.plot_points import POINTS_AFTER, POINTS_BEFORE, range_around
from storage.history import parquet
from storage.history.reader import HistoryReader
from storage.history.writer import HistoryWriter

START_NS = 1_700_000_000 * SECOND_NS


def recorded(folder, every_ns: int, count: int) -> tuple[HistoryReader, np.ndarray]:
    """Record ``count`` points of one series; return a reader and their times."""
    writer, partition = HistoryWriter(str(folder), "plant"), Partition("x", 0)
    writer.open(partition, "log", 1, 0)
    at = np.arange(count)
    time, values = START_NS + at * every_ns, np.zeros((count, 1))
    verdicts = {"flag": np.zeros(count, bool), "surprise": np.zeros(count, np.float32)}
    channels = dict.fromkeys(("value", "expected", "lower", "upper"), values)
    table = parquet.rows(at, time, np.zeros(count, np.int32), parquet.texts(["a"]), ["v"], verdicts, channels)
    writer.append(partition, 0, count, table)
    writer.barrier(partition, count)
    writer.close()
    return HistoryReader(str(folder)), time


@pytest.mark.parametrize("every_ns", [SECOND_NS, 300 * SECOND_NS, DAY_NS])
def test_a_range_has_as_many_points_for_seconds_as_for_days(tmp_path, every_ns):
    history, time = recorded(tmp_path, every_ns, 900)
    since, until = range_around(history, "plant", "a", int(time[500]), int(time[502]))
    assert (since, until) == (time[500 - POINTS_BEFORE], time[502 + POINTS_AFTER] + 1)


def test_a_young_series_has_what_there_is(tmp_path):
    history, time = recorded(tmp_path, SECOND_NS, 20)
    assert range_around(history, "plant", "a", int(time[10]), int(time[10])) == (time[0], time[19] + 1)
    assert range_around(history, "plant", "b", int(time[10]), int(time[11])) == (time[10], time[11] + 1)
