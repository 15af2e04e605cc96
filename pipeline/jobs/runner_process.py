"""The runner in its own process, so that it and Dask share no interpreter with scoring.

The parent writes its config to the child's standard input. Secrets stand there by name, never by value. A
child whose parent was killed finishes its running jobs and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import structlog

from pipeline.config.schema import Config
from pipeline.core.child_environment import log_level
from pipeline.jobs.worker_environment import forget_database_variables, runner_environment

if TYPE_CHECKING:
    from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: Time after which a runner without work ends.
IDLE_SECONDS = 30.0
NICENESS = 10
STOP_SECONDS = 10.0


class RunnerProcess:
    """The parent's handle of the runner process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def ensure(self, config: Config) -> None:
        """Start the process unless it runs."""
        if self.running:
            return
        self.stop()
        quiet = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
            "DASK_LOGGING__DISTRIBUTED": "critical",
            # A runner that is killed at the end of its time would leave a warning on the terminal.
            "PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker",
        }
        command = [sys.executable, "-m", "pipeline.jobs.runner_process"]
        # A new session: Ctrl-C on the terminal reaches only the parent, which stops its child in order.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            env=runner_environment(config, os.environ) | quiet | log_level(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(config.model_dump_json(by_alias=True, exclude_unset=True).encode())
        self._process.stdin.close()

    def stop(self) -> None:
        """Stop the process, which returns its jobs to the queue. A second call has no effect."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def main() -> None:
    """Run the child process."""
    parent = os.getppid()
    os.nice(NICENESS)
    os.umask(0o077)
    config = Config.model_validate_json(sys.stdin.buffer.read())
    from pipeline.database import owner_name
    from pipeline.jobs.dask_workers import DaskWorkers
    from pipeline.jobs.runner import Runner
    from pipeline.observability.log_setup import configure_logs

    configure_logs(os.environ.get("FOREWATCH_LOG_LEVEL", "info"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    database = _open_database(config)
    forget_database_variables(config)
    try:
        runner = Runner(config, database, owner_name(), DaskWorkers(config.cluster))
        runner.run(stop, IDLE_SECONDS, orphaned=lambda: os.getppid() != parent)
    except Exception:
        log.exception("runner ends with an unexpected error", exit_code=1)
        sys.exit(1)
    finally:
        database.close()


def _open_database(config: Config) -> Database:
    """Connect with a password that is kept in memory, because the environment is emptied afterwards."""
    from pipeline.database import database_of
    from storage.sql.database import Database

    password = os.environ.get("PGPASSWORD")
    if password is None or config.database_password is not None or config.database.startswith("sqlite"):
        return database_of(config)
    return Database(config.database, password)


if __name__ == "__main__":  # Dask spawns its workers, and they import this module.
    main()
