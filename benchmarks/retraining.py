"""Cost of a training for the scoring beside it.

It measures the time of commits and of whole turns with and without a training, on the same engine.

    python -m benchmarks.retraining [--seconds 30] [--rate 20000] [--series 1000] [--detector standard]

Records are put into an embedded log at a steady rate; the engine scores and commits them into SQLite. Then a
training of the same stream, on the history that was just written, runs as it does beside a daemon: in the
runner's process and a Dask worker of low priority.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from detectors.composite.warmup import compile_kernels
from pipeline.config.schema import Config
from pipeline.database import open_database
from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.jobs.requests import request_training
from pipeline.jobs.runner_process import RunnerProcess
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.sources import make_source
from pipeline.sources.memory import MemoryLog, memory_log
from storage.history.writer import HistoryWriter
from storage.model_store import jobs
from storage.sql.database import Database

WARM_UP = 5.0


class Load:
    """Feeds the log and turns the engine, and keeps the seconds of every commit and turn."""

    def __init__(self, engine: Engine, log: MemoryLog, rate: int, series: int) -> None:
        self._engine, self._log, self._rate, self._series = engine, log, rate, series
        self._sent, self._began = 0, time.monotonic()
        self._rng = np.random.default_rng(0)
        self.commits: list[float] = []
        self.turns: list[float] = []
        commit = engine.parts.committer.commit

        def timed(*arguments, **named):
            started = time.perf_counter()
            try:
                return commit(*arguments, **named)
            finally:
                self.commits.append(time.perf_counter() - started)

        engine.parts.committer.commit = timed  # type: ignore[method-assign]

    def run(self, until) -> dict[str, float]:
        """Until ``until()``; percentiles in ms of what happened meanwhile."""
        self.commits.clear()
        self.turns.clear()
        first, began = self._sent, time.monotonic()
        while not until():
            self._feed()
            started = time.perf_counter()
            if self._engine.turn(0.0):
                self.turns.append(time.perf_counter() - started)
            time.sleep(0.005)
        seconds = time.monotonic() - began
        found = {f"commit_p{q}": 1e3 * float(np.percentile(self.commits, q)) for q in (50, 99)}
        found |= {f"turn_p{q}": 1e3 * float(np.percentile(self.turns, q)) for q in (50, 99)}
        return found | {
            "commits": len(self.commits),
            "records_per_second": (self._sent - first) / seconds,
            "seconds": seconds,
        }

    def _feed(self) -> None:
        due = int((time.monotonic() - self._began) * self._rate)
        count = min(due - self._sent, self._rate)
        numbers = np.arange(self._sent, self._sent + count)
        values = 20 + 4 * np.sin(numbers / self._series / 30) + self._rng.normal(0, 0.3, count)
        pairs = zip(
            (numbers % self._series).tolist(),
            (1_700_000_000 + 60 * (numbers // self._series)).tolist(),
            values.tolist(),
            strict=True,
        )
        self._log.extend([b'{"s":"s%d","t":%d,"v":%.3f}' % one for one in pairs])
        self._sent += count


def training(config: Config, database: Database, runner: RunnerProcess):
    """Queue one and say when it is over."""
    now_ns = time.time_ns()
    with database.begin() as connection:
        number = request_training(
            connection,
            "load",
            config.streams["load"],
            now_ns,
            trigger="manual",
            author="benchmark",
            now_ns=now_ns,
        )
    looked, over = [0.0], [False]

    def done() -> bool:
        if time.monotonic() - looked[0] > 1.0:
            looked[0] = time.monotonic()
            runner.ensure(config)
            with database.read() as connection:
                job = jobs.get(connection, number)
            over[0] = job.state in jobs.ENDED_STATES
            if over[0]:
                print(f"the training {job.state}: {job.reason}; {job.cost}")
        return over[0]

    return done


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--detector", default="standard")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stream = {
            "source": {"memory": {"name": "load"}},
            "format": {"json": {"series": "s", "time": "t", "values": "v"}},
            "every": "1m",
            "detector": options.detector,
            "retraining": {
                "schedule": None,
                "epochs": options.epochs,
                "shadow": "0s",
                "post_promotion_check": "0s",
                "promote": "manual",
            },
        }
        config = Config.model_validate(
            {"database": f"sqlite:///{Path(folder)}/load.db", "http": None, "streams": {"load": stream}}
        )
        runner = RunnerProcess()
        with open_database(config) as database:
            settings = config.streams["load"]
            source = make_source("load", settings.source, settings.format)
            writer = HistoryWriter(config.history_path, "load")
            engine = build_engine(
                "load", config, database, source, StreamMetrics(Metrics(), "load"), history_writer=writer
            )
            compile_kernels(engine.parts.scorer.detector)
            load = Load(engine, memory_log("load"), options.rate, options.series)
            found = {}
            try:
                for name, until in (
                    ("warm-up", _after(WARM_UP)),
                    ("without", _after(options.seconds)),
                    ("with", training(config, database, runner)),
                ):
                    found[name] = load.run(until)
                    print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
            finally:
                runner.stop()
                engine.close()
    ratio = {
        key: found["with"][key] / found["without"][key]
        for key in ("commit_p50", "commit_p99", "turn_p50", "turn_p99")
    }
    print("with a training / without:", ", ".join(f"{key} ×{value:.2f}" for key, value in ratio.items()))
    print(json.dumps({"benchmark": "retraining", "options": vars(options), **found, "ratio": ratio}))


def _after(seconds: float):
    """Over once so many seconds have passed since the first question."""
    began: list[float] = []

    def over() -> bool:
        began.append(time.monotonic())
        return began[-1] - began[0] >= seconds

    return over


if __name__ == "__main__":
    main()
