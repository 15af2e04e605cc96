"""Cost of the database and the history: commits, snapshots, takeover, segments.

python -m benchmarks.storage            # SQLite and a real PostgreSQL, both with fsync
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core.types import Anomaly, AnomalyState, Counts, Partition, Position, Severity
from storage.history import parquet
from storage.history.reader import HistoryReader
from storage.history.writer import HistoryWriter
from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import positions, snapshots
from tests.support.postgres_server import LocalPostgres, create_database

P = Partition("sensors", 0)
COMMITS = 500
HISTORY_ROWS = 2_000_000

FROZEN = """
import sys
from pipeline.core.types import Counts, Partition
from storage.stream_state import positions
from storage.sql.database import Database
database = Database(sys.argv[1])
position = positions.acquire(database, "frozen", Partition("sensors", 0), "frozen", "")
with database.begin() as connection:
    positions.advance(connection, position, 10, Counts(scored=10), None)
    print("in transaction", flush=True)
    sys.stdin.readline()
"""


def some_anomalies(start_ns: int) -> list[Anomaly]:
    return [
        Anomaly(
            id=Anomaly.identify("bench", f"series {i}", start_ns),
            stream="bench",
            series=f"series {i}",
            labels={"site": "b2"},
            state=AnomalyState.OPEN,
            severity=Severity.MAJOR,
            direction="up",
            start_ns=start_ns,
            end_ns=start_ns + 1,
            peak_ns=start_ns,
            points=1,
            score=1.0,
            surprise=9.0,
            channels=["value"],
            observed=[9.0],
            expected=[1.0],
            lower=[0.0],
            upper=[2.0],
            contribution=[1.0],
            forecaster="lstm",
            model_version="v",
            config_hash="c",
            partition=P,
            first_offset=1,
            last_offset=2,
            peak_offset=2,
            last_flag_seq=1,
        )
        for i in range(5)
    ]


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1e3


def commits(database: Database) -> dict[str, float]:
    position = positions.acquire(database, "bench", P, "me", "")
    taken: list[float] = []
    for n in range(COMMITS):
        found = some_anomalies(n)

        def commit(position: Position = position, n: int = n, found: list[Anomaly] = found) -> None:
            with database.begin() as connection:
                positions.advance(connection, position, (n + 1) * 100, Counts(scored=(n + 1) * 100), n)
                anomalies.upsert(connection, found)

        taken.append(timed(commit))
        position = positions.advanced(position, (n + 1) * 100, Counts(scored=(n + 1) * 100), n)
    return {"commit_ms": statistics.median(taken), "commit_p99_ms": statistics.quantiles(taken, n=100)[98]}


def snapshot(database: Database) -> dict[str, float]:
    """10,000 series of 1 KB, in pages of 4 MB."""
    position = positions.acquire(database, "bench", P, "me", "")
    state = os.urandom(10_000 * 1024)
    pages = [state[start : start + (4 << 20)] for start in range(0, len(state), 4 << 20)]

    def save() -> None:
        with database.begin() as connection:
            snapshots.save(connection, position, 1, pages)

    def load() -> None:
        with database.read() as connection:
            found = snapshots.load(connection, "bench", P)
            assert found is not None
            assert b"".join(found.pages) == state

    saved = [timed(save) for _ in range(7)]
    return {
        "snapshot_save_ms": statistics.median(saved),
        "snapshot_load_ms": statistics.median([timed(load) for _ in range(7)]),
    }


def takeover(database: Database, url: str) -> dict[str, float]:
    """Measure the takeover of a free partition, and from an owner stopped in its transaction."""
    free = statistics.median(
        [timed(lambda: positions.acquire(database, "bench", P, "me", "")) for _ in range(50)]
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", FROZEN, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    owner.stdout.readline()
    os.kill(owner.pid, signal.SIGSTOP)
    frozen = (
        timed(lambda: positions.acquire(database, "frozen", P, "me", ""))
        if database.dialect == "postgresql"
        else float("nan")
    )
    owner.kill()
    owner.wait()
    return {"takeover_ms": free, "takeover_frozen_ms": frozen}


def _append(writer, batch, names):
    """Make a table of one batch and hand it to the writer."""
    first, offset, when, series, point, channel = batch
    writer.append(P, first, first + 20_000, parquet.rows(offset, when, series, names, ["v"], point, channel))


def history(folder: Path) -> dict[str, float]:
    """Two million rows of 10,000 series with one channel, appended in batches of 20,000 by one thread, then
    one series read.
    """
    names = pa.array([f"plant-{i % 20}/sensor-{i}" for i in range(10_000)])
    rng = np.random.default_rng(0)
    batches = []
    for first in range(0, HISTORY_ROWS, 20_000):
        offset = np.arange(first, first + 20_000)
        value = np.round(20 + rng.normal(size=(20_000, 1)), 2)
        band = {name: value.astype(np.float32) for name in ("expected", "lower", "upper")}
        point = {
            "score": rng.random(20_000, np.float32),
            "surprise": rng.random(20_000, np.float32),
            "flag": offset % 1000 == 0,
        }
        batches.append(
            (
                first,
                offset,
                offset * 1_000_000,
                rng.integers(0, 10_000, 20_000, np.int32),
                point,
                {"value": value, **band},
            )
        )
    writer = HistoryWriter(str(folder), "bench")
    writer.open(P, "", 1, 0)
    started, cpu, appending = time.perf_counter(), time.process_time(), 0.0
    for batch in batches:
        appending += timed(partial(_append, writer, batch, names))
    assert writer.barrier(P, HISTORY_ROWS)
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    writer.settle(P, HISTORY_ROWS)
    writer.close()
    reader = HistoryReader(str(folder))
    read = timed(lambda: reader.read("bench", series="plant-7/sensor-7"))
    return {
        "history_rows_per_s": HISTORY_ROWS / elapsed,
        "history_cpu_us_per_row": used / HISTORY_ROWS * 1e6,
        "history_append_us_per_row": appending * 1e3 / HISTORY_ROWS,
        "history_bytes_per_row": writer.stats.bytes / HISTORY_ROWS,
        "history_read_series_ms": read,
    }


def main() -> None:
    """Run the benchmark of the command line."""
    results: dict[str, dict[str, float]] = {}
    server = LocalPostgres(durable=True)
    try:
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            for name, url in (
                ("sqlite", f"sqlite:///{folder}/bench.db"),
                ("postgresql", create_database(server)),
            ):
                database = Database(url)
                database.upgrade()
                results[name] = commits(database) | snapshot(database) | takeover(database, url)
                database.close()
            results["history"] = history(Path(folder) / "history")
    finally:
        server.remove()
    for name, figures in results.items():
        for figure, value in figures.items():
            print(f"{name:<12}{figure:<28}{value:>14,.2f}")
    print("RESULT " + json.dumps({"benchmark": "storage", **results}))


if __name__ == "__main__":
    main()
