"""Measure the time of `forewatch run` from the command to /readyz with a warm cache; the limit is 3 s."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

LIMIT_S = 3.0
PATIENCE_S = 300.0
CONFIG = """\
database: sqlite:///{folder}/forewatch.db
http: {{port: {port}}}
streams:
  plant:
    source: {{files: {{paths: ["{folder}/points.csv"], follow: true}}}}
    format: {{csv: {{series: sensor, time: ts, values: temperature}}}}
    detector: {detector}
    every: 1m
"""


def started(folder: Path, port: int) -> tuple[float, float]:
    """(seconds, CPU seconds) until the daemon is ready; it is stopped then."""
    began = time.perf_counter()
    process = psutil.Popen(
        [str(Path(sys.executable).with_name("forewatch")), "run", str(folder / "forewatch.yaml")],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _ready(port):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                raise SystemExit(f"the daemon is not ready (exit code {process.poll()})")
            time.sleep(0.02)
        times = process.cpu_times()
        return time.perf_counter() - began, times.user + times.system
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--detector", default="light")
    options = parser.parse_args()
    from tests.support.postgres_server import free_port

    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "forewatch.yaml").write_text(
            CONFIG.format(folder=folder, port=port, detector=options.detector)
        )
        (folder / "points.csv").write_text(
            "sensor,ts,temperature\n" + "".join(f"s,{1_700_000_000 + 60 * i},{i % 9}\n" for i in range(100))
        )
        started(folder, port)
        found = [started(folder, port) for _ in range(options.rounds)]
    seconds, cpu = (statistics.median(column) for column in zip(*found, strict=True))
    print(
        f"detector {options.detector}: ready after {seconds:.2f} s ({cpu:.2f} s of CPU), "
        f"median of {options.rounds}; limit {LIMIT_S:g} s"
    )
    print(
        json.dumps(
            {"benchmark": "startup", "detector": options.detector, "rounds": found, "limit_s": LIMIT_S}
        )
    )


if __name__ == "__main__":
    main()
