"""Backfill in parts beside one process, and the cost model of ``forewatch backfill --plan``.

    python -m benchmarks.cluster_backfill [--points 1e6 1e7] [--check 3e6] [--workers 2] [--detector standard]

A Parquet file in the order of time, a real PostgreSQL, and for each size: one process, then ``local:N``. The
efficiency is the time of one process, divided by N and by the time of N workers. With ``--beside`` N
processes also run the whole backfill at the same time, with no Dask and nothing in common but the server:
one process alone, divided by their time, is what the cores of this machine give at most. The CPU is that of
this process and its children, and can be compared on a busy machine. The efficiency of the CPU is that of one
process over that of all. The model start + rows × row is fitted to the first and the last size, and compared
with that of ``--check``. The last lines are plans of 10⁹ points. No size begins after ``--limit-seconds``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.schema import Config
from pipeline.jobs.cluster_backfill import ClusterBackfill, ClusterChoice
from pipeline.services.backfill import run_backfill
from pipeline.services.backfill_plan import COSTS, BackfillPlan, InputPart, plan_shards
from tests.support.postgres_server import PostgresServer, create_database, drop_database, running_postgres

SERIES = 1000
ROWS_IN_A_GROUP = 100_000
START_NS = 1_750_000_000 * 10**9


class Silent:
    """Progress that is not shown."""

    def advance(self, count: float) -> None:
        """Show nothing."""

    def expect(self, total: float) -> None:
        """Show nothing."""


def write_points(path: Path, points: int) -> None:
    """Write points of ``SERIES`` series, a minute apart, in the order of time."""
    rng = np.random.default_rng(1)
    names = pa.array([f"sensor-{i:04}" for i in range(SERIES)])
    seconds, step = points // SERIES, ROWS_IN_A_GROUP // SERIES
    schema = pa.schema({"s": pa.string(), "t": pa.timestamp("ns", tz="UTC"), "v": pa.float64()})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, seconds, step):
            time_ns = np.repeat(START_NS + np.arange(first, min(first + step, seconds)) * 60 * 10**9, SERIES)
            which = np.tile(np.arange(SERIES), len(time_ns) // SERIES)
            values = 20 + 5 * np.sin(time_ns / 86400e9 * 2 * np.pi) + rng.normal(0, 0.5, len(time_ns))
            columns = [names.take(pa.array(which)), pa.array(time_ns).cast(schema.field("t").type), values]
            writer.write_table(pa.table(columns, schema=schema))


class Run(NamedTuple):
    """Time on the clock, time of CPU, and result of a backfill."""

    seconds: float
    cpu_seconds: float
    anomalies: int


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def config_of(url: str, detector: str) -> Config:
    """Return the config of the stream."""
    form = {"csv": {"series": "s", "time": "t", "values": ["v"]}}
    stream = {"source": {"memory": {}}, "format": form, "detector": detector, "every": "1m"}
    return Config.model_validate({"database": url, "http": None, "streams": {"bench": stream}})


def measure(server: PostgresServer, file: Path, detector: str, workers: int) -> Run:
    """Run a backfill in a new database.

    Args:
        server: Makes the database.
        file: The input.
        detector: Name of the detector.
        workers: Number of workers, 0 for this process.
    """
    url = create_database(server)
    try:
        if workers:
            started, cpu = time.perf_counter(), cpu_seconds()
            work = ClusterBackfill(config_of(url, detector), "bench", (str(file),))
            report = work.run(ClusterChoice(None, workers), Silent()).report
            return Run(time.perf_counter() - started, cpu_seconds() - cpu, report.anomalies)
        return measure_alone(url, file, detector)
    finally:
        drop_database(server, url)


def measure_alone(url: str, file: Path, detector: str) -> Run:
    """Run a backfill in this process.

    Args:
        url: An empty database.
        file: The input.
        detector: Name of the detector.
    """
    started, cpu = time.perf_counter(), cpu_seconds()
    report = run_backfill(config_of(url, detector), "bench", [file], None, None, None, Silent())
    return Run(time.perf_counter() - started, cpu_seconds() - cpu, report.anomalies)


def measure_beside(server: PostgresServer, files: dict[int, Path], detector: str, count: int) -> list[Run]:
    """Run the same backfill in several processes at once.

    Args:
        server: Makes a database for each.
        files: The input under 1, and a short one under 0, by which each process compiles and imports first.
        detector: Name of the detector.
        count: Number of processes.
    """
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        for key in (0, 1):
            urls = [create_database(server) for _ in range(count)]
            found = pool.starmap(measure_alone, [(url, files[key], detector) for url in urls], chunksize=1)
            for url in urls:
                drop_database(server, url)
    return found


def plan_of(points: int, files: int, detector: str) -> BackfillPlan:
    """Return the plan of so many points in files of equal size."""
    inputs = [InputPart(f"past/{n:04}.parquet", 0, "", 0, points // files) for n in range(files)]
    cost = COSTS[detector]
    return BackfillPlan("", "bench", tuple(plan_shards(inputs, cost, ["s"])), points, cost)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--check", type=float, default=3e6, help="0: none")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--detector", default="standard", choices=sorted(COSTS))
    parser.add_argument("--beside", action="store_true", help="also N processes that share nothing")
    parser.add_argument("--limit-seconds", type=float, default=600)
    options = parser.parse_args()
    sizes = sorted({*map(int, options.points), int(options.check)} - {0})
    begun = time.perf_counter()
    found: dict[int, tuple[float, float]] = {}
    with running_postgres() as server, tempfile.TemporaryDirectory() as folder:
        file, short = Path(folder) / "points.parquet", Path(folder) / "short.parquet"
        write_points(short, 200_000)
        measure(server, short, options.detector, 0)  # compiled code and imports
        print("points  one s  workers s  efficiency  one CPU s  workers CPU s  CPU efficiency  anomalies")
        for points in sizes:
            if time.perf_counter() - begun > options.limit_seconds:
                print(f"{points:.0e}  not run: {options.limit_seconds:.0f} s are over")
                continue
            write_points(file, points)
            one = measure(server, file, options.detector, 0)
            many = measure(server, file, options.detector, options.workers)
            found[points] = one.seconds, many.seconds
            equal = "" if one.anomalies == many.anomalies else f", {many.anomalies} in parts"
            clock = (
                f"{one.seconds:.1f}  {many.seconds:.1f}  {one.seconds / options.workers / many.seconds:.2f}"
            )
            cpu = f"{one.cpu_seconds:.1f}  {many.cpu_seconds:.1f}  {one.cpu_seconds / many.cpu_seconds:.2f}"
            print(f"{points:.0e}  {clock}  {cpu}  {one.anomalies}{equal}", flush=True)
            if options.beside:
                report_beside(
                    one, measure_beside(server, {0: short, 1: file}, options.detector, options.workers)
                )
    report_model(found, int(options.check), options.workers, options.detector)


def report_beside(one: Run, several: list[Run]) -> None:
    """Print what processes that share nothing take at the same time.

    Args:
        one: One process alone.
        several: The processes.
    """
    seconds, cpu = max(run.seconds for run in several), sum(run.cpu_seconds for run in several) / len(several)
    print(
        f"{len(several)} whole backfills at once: {seconds:.1f} s, {cpu:.1f} s of CPU each; "
        f"the machine allows {one.seconds / seconds:.2f} (clock), {one.cpu_seconds / cpu:.2f} (CPU)",
        flush=True,
    )


def report_model(found: dict[int, tuple[float, float]], check: int, workers: int, detector: str) -> None:
    """Print the fitted model, its error at another size, and a plan of 10⁹ points.

    Args:
        found: Seconds of one process and of the workers, by points.
        check: Size that is not fitted.
        workers: Number of workers.
        detector: Name of the detector.
    """
    fitted = sorted(size for size in found if size != check)
    if len(fitted) >= 2:
        (low, high) = fitted[0], fitted[-1]
        for place, name in enumerate(("one process", f"{workers} workers")):
            row = (found[high][place] - found[low][place]) / (high - low)
            start = found[low][place] - row * low
            print(f"{name}: {start:.1f} s + {row * 1e6:.2f} µs a point", end="")
            if check in found:
                expected = start + row * check
                print(
                    f"; at {check:.0e}: {expected:.1f} s expected, {found[check][place]:.1f} s measured",
                    end="",
                )
            print()
    for files in (400, 4000):
        plan = plan_of(10**9, files, detector)
        times = ", ".join(f"{n} workers {plan.seconds(n):.0f} s" for n in (1, 10, 100, 400))
        print(f"plan of 1e9 points in {files} files: {len(plan.shards)} parts; {times}")


if __name__ == "__main__":
    main()
