"""Many series of which most are silent: memory, time of a point, snapshots.

    python -m benchmarks.idle_series [--series 100000] [--waves 1] [--active 0.1] [--detector standard]

One engine on an in-memory log of one partition, and a real PostgreSQL. In each wave new series have three
records each, a minute apart. Then two hours pass in which a share of them goes on, and a snapshot moves the
others to the database. ``--waves 10`` is a million series in the memory of 200,000. At the end another engine
takes the partition over, and silent series come back. Each phase prints its time, the memory of the process,
and the size of the database.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import text

from pipeline.config.schema import Config
from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.observability.log_setup import configure_logs
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.sources.memory import MemoryLog, MemorySource
from storage.sql.database import Database
from tests.faults.feed import config_tree, record
from tests.support.postgres_server import create_database, running_postgres

MINUTE_SECONDS = 60
ROWS_OF_A_SERIES = 3
SILENT_SECONDS = 2 * 3600
RETURNING_SERIES = 1000
BATCH = 20_000


class Stream:
    """The log, the database, and the engine that owns the partition now."""

    def __init__(self, folder: Path, url: str, detector: str, most: int) -> None:
        """Make the database.

        Args:
            folder: For recorded history.
            url: The database.
            detector: Name of the detector.
            most: Largest number of series.
        """
        self.log = MemoryLog("plant", 1)
        self.database = Database(url)
        self.database.upgrade()
        storage = {"history_path": str(folder / "history"), "snapshot_every": "24h"}
        changes = {"detector": detector, "every": "1m", "lateness": "0s", "idle_after": "1h"}
        tree = config_tree(
            url,
            {"memory": {"name": "plant"}},
            storage=storage,
            engine={"max_batch": BATCH},
            max_series=most,
            **changes,
        )
        self.config = Config.model_validate(tree)
        self.engine = self.start()
        self.longest_snapshot_seconds = 0.0

    def start(self) -> Engine:
        """Return another engine, with compiled kernels."""
        from detectors.composite.warmup import compile_kernels

        self.metrics = Metrics()
        metrics = StreamMetrics(self.metrics, "plant")
        engine = build_engine("plant", self.config, self.database, MemorySource(self.log), metrics)
        compile_kernels(engine.parts.scorer.detector)
        return engine

    def send(self, series: Iterable[int], second: int) -> int:
        """Commit a record of each series, and return their number."""
        values = [record(f"s{number}", second, 20.0 + number % 7) for number in series]
        self.log.extend(values)
        self.drain()
        return len(values)

    def drain(self) -> None:
        """Read until all is committed."""
        (partition,) = self.log.partitions
        while True:
            self.engine.turn(0.0)
            at = self.engine.parts.ownership.positions.get(partition)
            if at is not None and at.next_offset == self.log._logs[0].end and self.engine.between_batches:
                return

    def snapshot(self) -> int:
        """Take snapshots until no series leaves memory, and return those left."""
        series, before = self.engine.parts.scorer.series, -1
        while len(series) != before:
            before = len(series)
            self.engine.parts.snapshots.renew()
            started = time.perf_counter()
            self.engine.parts.snapshots.take_all(self.engine.parts.ownership)
            self.longest_snapshot_seconds = max(self.longest_snapshot_seconds, time.perf_counter() - started)
        return len(series)

    def take_over(self) -> int:
        """Let another engine own the partition, and return its series in memory."""
        self.log.expel(self.engine.parts.source)  # type: ignore[arg-type]
        self.engine = self.start()
        self.drain()
        return len(self.engine.parts.scorer.series)


def phase(stream: Stream, name: str, act: Callable[[], int]) -> None:
    """Run a phase that returns a number of records or series, and print figures."""
    started, cpu = time.perf_counter(), time.process_time()
    count = act()
    figures: dict[str, Any] = {"phase": name, "count": count}
    figures["seconds"] = round(time.perf_counter() - started, 2)
    figures["cpu_seconds"] = round(time.process_time() - cpu, 2)
    figures["cpu_us_each"] = round(1e6 * (time.process_time() - cpu) / max(count, 1), 1)
    figures["rss_mb"] = round(psutil.Process().memory_info().rss / 1e6)
    with stream.database.read() as connection:
        size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    sizes = stream.metrics.registry.get_sample_value(
        "forewatch_snapshot_bytes", {"stream": "plant", "topic": "plant", "partition": "0"}
    )
    figures |= {"database_mb": round(size / 1e6), "snapshot_mb": round((sizes or 0) / 1e6, 1)}
    if stream.longest_snapshot_seconds:
        figures["longest_snapshot_seconds"] = round(stream.longest_snapshot_seconds, 2)
        stream.longest_snapshot_seconds = 0.0
    figures["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps({"benchmark": "idle_series"} | figures), flush=True)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=100_000, help="of a wave")
    parser.add_argument("--waves", type=int, default=1)
    parser.add_argument("--active", type=float, default=0.1, help="share that goes on")
    parser.add_argument("--detector", default="standard")
    options = parser.parse_args()
    configure_logs("warning")
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        most = options.series * options.waves + 1
        stream = Stream(Path(folder), create_database(postgres), options.detector, most)
        second = 0
        for wave in range(options.waves):
            first = wave * options.series
            new = range(first, first + options.series)
            going_on = range(first, first + round(options.series * options.active))
            for row in range(ROWS_OF_A_SERIES):
                second += MINUTE_SECONDS
                phase(stream, f"record {row + 1} of each", lambda: stream.send(new, second))  # noqa: B023
            phase(stream, "snapshot of all", stream.snapshot)
            second += SILENT_SECONDS
            phase(stream, "the active ones go on", lambda: stream.send(going_on, second))  # noqa: B023
            phase(stream, "snapshot that offloads", stream.snapshot)
        phase(stream, "another engine takes over", stream.take_over)
        second += MINUTE_SECONDS
        back = range(options.series - RETURNING_SERIES, options.series)
        phase(stream, "silent ones come back", lambda: stream.send(back, second))
        stream.database.close()


if __name__ == "__main__":
    main()
