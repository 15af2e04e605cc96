"""The runner as a process of its own, so that neither it nor Dask shares an interpreter with scoring.

The parent writes its config to the child's standard input: secrets stand in it by name only, never by value.
A child whose parent was killed finishes what it has in hand and ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading

from pipeline.config.schema import Config

#: How long a runner without work stays.
IDLE_SECONDS = 30.0
NICE = 10
LEAVE_SECONDS = 10.0


class RunnerProcess:
    """The parent's side."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def ensure(self, config: Config) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        self.stop()
        quiet = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
            "DASK_LOGGING__DISTRIBUTED": "critical"
        }
        quiet["FOREWATCH_LOG_LEVEL"] = logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower()
        command = [sys.executable, "-m", "pipeline.jobs.runner_process"]
        # A session of its own: Ctrl-C on the terminal is for the parent, which ends its child in order.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, env=os.environ | quiet, start_new_session=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(config.model_dump_json(by_alias=True, exclude_unset=True).encode())
        self._process.stdin.close()

    def stop(self) -> None:
        """End it: it gives back what it has in hand. Calling it twice is fine."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def main() -> None:
    """The child."""
    parent = os.getppid()
    os.nice(NICE)
    config = Config.model_validate_json(sys.stdin.buffer.read())
    from pipeline.database import database_of, owner_name
    from pipeline.jobs.dask_workers import Workers
    from pipeline.jobs.runner import Runner
    from pipeline.observability.log_setup import configure_logs

    configure_logs(os.environ.get("FOREWATCH_LOG_LEVEL", "info"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    database = database_of(config)
    try:
        runner = Runner(config, database, owner_name(), Workers(config.cluster))
        runner.run(stop, IDLE_SECONDS, orphaned=lambda: os.getppid() != parent)
    finally:
        database.close()


if __name__ == "__main__":  # Dask's workers are spawned, and import this module again
    main()
