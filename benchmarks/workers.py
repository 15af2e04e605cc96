"""Rate of ``forewatch run`` with several workers, beside one process.

    python -m benchmarks.workers [--records N] [--workers 1 2] [--rounds 3] [--detector standard]

A real local broker, PostgreSQL, and ``forewatch run`` with 1, 2, ... workers in turn over the same topic,
each in a new group and database. The rate counts between 30 % and 95 % of the records, so that starting,
joining and the end are left out. ``--broker-cpus 0`` pins the broker, ``--cpus 1-3`` the daemon. Memory is
the sum of the proportional set sizes of all processes of the daemon.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.throughput import TOPIC, produce
from pipeline.core.types import Position
from storage.sql.database import Database
from storage.stream_state import positions
from tests.support.kafka_server import FaultyBroker
from tests.support.postgres_server import create_database, running_postgres

LIMIT_SECONDS = 600.0
#: Share of the records after which the rate counts, so that joining and rebalancing does not.
FIRST_SHARE, LAST_SHARE = 0.3, 0.95


@dataclass(frozen=True)
class Run:
    """Figures of one run."""

    workers: int
    records_per_second: float
    cpu_us_a_record: float
    megabytes: float


def write_config(folder: Path, url: str, broker: str, workers: int, detector: str) -> Path:
    """Write the config of a run and return its path.

    Args:
        folder: Folder of the file and of the recorded history.
        url: URL of the database.
        broker: Address of the broker.
        workers: Number of workers.
        detector: Name of the detector.
    """
    source = {"kafka": {"brokers": [broker], "topics": [TOPIC], "group": f"bench-{time.time_ns()}"}}
    form = {"json": {"series": "sensor", "time": "ts", "values": ["temperature"]}}
    stream = {"source": source, "format": form, "detector": detector, "every": "1m", "power": False}
    tree = {"database": url, "workers": workers, "http": None, "streams": {"bench": stream}}
    tree["storage"] = {"history_path": str(folder / f"history-{time.time_ns()}")}
    path = folder / "bench.yaml"
    path.write_text(json.dumps(tree))
    return path


def proportional_bytes(pids: Sequence[int]) -> int:
    """Return the sum of the proportional set sizes."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


def measure(config: Path, database: Database, records: int, workers: int, cpus: Sequence[int]) -> Run:
    """Run the daemon over the whole topic once.

    Args:
        config: The config file.
        database: Its database.
        records: Records of the topic.
        workers: Number of workers of the config.
        cpus: Cores that the daemon may use; empty: all.
    """
    daemon = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from pipeline.cli import main; main()",
            "--log-level",
            "error",
            "run",
            config,
        ],
        preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
    )
    try:
        first, last = _clocked(database, daemon.pid, records)
        processes = [daemon.pid, *(one.pid for one in psutil.Process(daemon.pid).children(recursive=True))]
        megabytes = proportional_bytes(processes) / 1e6
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    done = last[1] - first[1]
    return Run(workers, done / (last[0] - first[0]), (last[2] - first[2]) / done * 1e6, megabytes)


def _clocked(
    database: Database, pid: int, records: int
) -> tuple[tuple[float, int, float], tuple[float, int, float]]:
    """Return (time, records, CPU seconds) near the beginning and the end."""
    first = last = None
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        with database.read() as connection:
            found: list[Position] = list(positions.all_of(connection, "bench"))
        read = sum(one.next_offset or 0 for one in found)
        now = (time.perf_counter(), read, _cpu_seconds(pid))
        if first is None and read >= FIRST_SHARE * records:
            first = now
        if last is None and read >= LAST_SHARE * records:
            last = now
        if first and last and read >= records:
            return first, last
        time.sleep(0.05)
    raise TimeoutError(f"{read} of {records} records were read")


def _cpu_seconds(pid: int) -> float:
    own = psutil.Process(pid)
    times = [one.cpu_times() for one in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def cpu_list(text: str) -> list[int]:
    """Return the numbers of a list such as ``0,2-3``."""
    ranges = [part.partition("-") for part in text.split(",") if part]
    return [n for low, _, high in ranges for n in range(int(low), int(high or low) + 1)]


def main() -> None:
    """Print a line a run and the ratios to one worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detector", default="standard")
    parser.add_argument("--broker-cpus", type=cpu_list, default=[])
    parser.add_argument("--cpus", type=cpu_list, default=[])
    options = parser.parse_args()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as name, running_postgres() as server:
        folder = Path(name)
        broker = FaultyBroker(folder / "kafka", heap="512m")
        broker.up()
        try:
            if options.broker_cpus:
                process = broker.process()
                assert process is not None
                for thread in Path(f"/proc/{process.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), options.broker_cpus)
            produce(broker.address, options.records, options.series, "lz4")
            for _ in range(options.rounds):
                for workers in options.workers:
                    url = create_database(server)
                    database = Database(url)
                    database.upgrade()
                    config = write_config(folder, url, broker.address, workers, options.detector)
                    runs.append(measure(config, database, options.records, workers, options.cpus))
                    database.close()
                    print(runs[-1], flush=True)
        finally:
            broker.kill()
    _print_ratios(runs, options.workers)


def _print_ratios(runs: Sequence[Run], counts: Sequence[int]) -> None:
    by = {n: [run for run in runs if run.workers == n] for n in counts}
    for n in counts:
        pairs = zip(by[n], by[counts[0]], strict=True)
        ratio = statistics.median(one.records_per_second / base.records_per_second for one, base in pairs)
        print(json.dumps({"workers": n, "times_the_rate_of": counts[0], "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()
