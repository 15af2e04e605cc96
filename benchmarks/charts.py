"""Charts of one series over a year of points at one second: time of a view.

    python -m benchmarks.charts [--days 365] [--series 1]

A history is recorded as a daemon leaves it: one merged segment a day, and the reductions of its owner. Each
length is looked at by a server that has read nothing yet: the first look reads files, later looks what stays
in memory. ``--no-reductions`` measures a history of an earlier version, whose segments are read.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from pipeline.api.context import ApiContext
from pipeline.api.routes.chart import ChartFilter, read_chart
from pipeline.config.schema import Config
from pipeline.core.durations import DAY_NS, SECOND_NS
from pipeline.core.types import Partition
from storage.history import parquet, reduction_files
from storage.history.reduction_writer import reduce_settled
from storage.history.segments import Segment, SegmentStore, folder_of
from storage.sql.database import Database

DAY_ROWS = 86_400
END_NS = 1_790_000_000 * SECOND_NS // DAY_NS * DAY_NS


def record(path: str, days: int, series: int) -> None:
    """Write one segment a day.

    Args:
        path: Folder of the history.
        days: Number of days before the end.
        series: Number of series of the stream.
    """
    store, rng = SegmentStore(path), np.random.default_rng(1)
    folder = folder_of("plant", Partition("x", 0), "log")
    rows = DAY_ROWS * series
    at = np.arange(rows)
    names = np.repeat(np.arange(series, dtype=np.int32), DAY_ROWS)
    within = np.tile(np.arange(DAY_ROWS), series)
    for day in range(days):
        start = END_NS - (days - day) * DAY_NS
        value = 20 + 5 * np.sin(within / DAY_ROWS * 2 * np.pi) + rng.normal(0, 0.3, rows)
        columns = {
            part: (value + plus)[:, None].astype(np.float32)
            for part, plus in (("value", 0.0), ("expected", 0.1), ("lower", -1.0), ("upper", 1.0))
        }
        verdicts = {
            "flag": np.zeros(rows, bool),
            "missed": np.zeros(rows, np.int32),
            "guard": np.ones(rows, np.int8),
        }
        time_ns = start + within * SECOND_NS
        table = parquet.rows(
            day * rows + at,
            time_ns,
            names,
            parquet.texts([f"s{n}" for n in range(series)]),
            ["v"],
            verdicts,
            columns,
        ).append_column("model", parquet.constant("light-1", rows))
        segment = Segment(
            folder, day * rows, (day + 1) * rows, 1, int(time_ns[0]), int(time_ns[-1]), start // SECOND_NS
        )
        store.write(segment, parquet.encode(table))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--series", type=int, default=1)
    parser.add_argument("--no-reductions", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stream = {
            "source": {"memory": {"name": "x"}},
            "format": {"json": {"series": "s", "time": "t", "values": ["v"]}},
        }
        url = f"sqlite:///{folder}/charts.db"
        config = Config.model_validate(
            {"database": url, "storage": {"history_path": f"{folder}/history"}, "streams": {"plant": stream}}
        )
        began = time.perf_counter()
        record(config.history_path, options.days, options.series)
        size = sum(one.stat().st_size for one in Path(folder, "history").rglob("*.parquet"))
        lasted = time.perf_counter() - began
        print(f"{options.days} days, {options.series} series: {size / 1e6:.0f} MB, {lasted:.0f} s")
        if not options.no_reductions:
            _reduce(config.history_path)
        with closing(Database(url)) as database:
            database.upgrade()
            for days in (options.days, options.days, 90, 30, 7, 1, 0.1):
                _print_views(ApiContext(config, database), days)
    print(f"load average {psutil.getloadavg()[0]:.1f}")


def _reduce(path: str) -> None:
    """Write the reductions, and print what they cost."""
    store, folder = SegmentStore(path), folder_of("plant", Partition("x", 0), "log")
    began, used = time.perf_counter(), time.process_time()
    while reduce_settled(store, folder, 1 << 60, time.time()):
        pass
    files = reduction_files.listed(store)[1]
    print(
        f"{len(files)} files of reductions: {sum(one.size_bytes for one in files) / 1e6:.1f} MB, "
        f"{time.perf_counter() - began:.1f} s, CPU {time.process_time() - used:.1f} s"
    )


def _print_views(context: ApiContext, days: float) -> None:
    """Print the time of views of a length at several places."""
    length, times, used = round(days * DAY_NS), [], []
    for place in range(5):
        until = END_NS - place * length // 20
        query = ChartFilter(
            **{
                "stream": "plant",
                "series": "s0",
                "width": 1000,
                "from": datetime.fromtimestamp((until - length) / 1e9, UTC),
                "to": datetime.fromtimestamp(until / 1e9, UTC),
            }
        )
        began, cpu = time.perf_counter(), time.process_time()
        answer = read_chart(context, query)
        times.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (time.process_time() - cpu))
    print(
        f"{days:6g} days: first {times[0]:7.0f} ms (CPU {used[0]:6.0f}), "
        f"then median {statistics.median(times[1:]):6.0f} ms (CPU {statistics.median(used[1:]):5.0f}); "
        f"{len(answer.body) / 1000:.0f} kB"
    )


if __name__ == "__main__":
    main()
