"""The server of API and dashboard beside a daemon, in a process of its own.

Requests then take no time of the interpreter that scores records.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress

import structlog

from pipeline.config.schema import Config
from pipeline.core.child_environment import child_environment

log = structlog.get_logger(__name__)

MODULE = "pipeline.api.daemon_server"
#: Line on the standard input of the process, behind its config: the API may open the database.
DATABASE_IS_OPEN = b"database is open\n"
#: Shortest and longest time between the end of a process and the start of the next one.
MIN_RETRY_SECONDS, RETRY_SECONDS = 0.5, 10.0
#: Time that a process has to end before it is killed.
STOP_SECONDS = 10.0


class DashboardService:
    """Keeps a process that serves API and dashboard.

    No error of it reaches the loop: a process that ends is started again, and streams run without it.
    """

    def __init__(self, config: Config) -> None:
        """Take a config; nothing is served if it does not ask for the server."""
        self._config = config
        self._database_is_open = False
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        #: Held while the process is started, told something, or ended.
        self._lock = threading.Lock()

    def announce(self) -> None:
        """Serve pages that say that forewatch starts, until ``start``."""
        serve = self._config.served
        if self._keeper is not None or serve is None or not serve.daemon:
            return
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="dashboard", daemon=True)
        self._keeper.start()

    def start(self) -> None:
        """Serve API and dashboard: the database is open."""
        self.announce()
        with self._lock:
            self._database_is_open = True
            if self._process is not None:
                _tell(self._process, DATABASE_IS_OPEN)

    def use_config(self, config: Config) -> None:
        """Serve another config; the server starts anew."""
        if config == self._config:
            return
        self.stop()
        self._config = config
        self.start()

    def stop(self) -> None:
        """End the process; a second call has no effect."""
        if self._keeper is None:
            return
        self._stopping.set()
        with self._lock:
            process, self._process = self._process, None
            if process is not None and process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        self._keeper.join(STOP_SECONDS)
        if process is not None and self._keeper.is_alive():
            process.kill()
            self._keeper.join()
        self._keeper = None

    def _keep(self) -> None:
        """Start the process, and again when it ends, until ``stop``."""
        wait = MIN_RETRY_SECONDS
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                process = self._process = _started(self._config)
                if self._database_is_open:
                    _tell(process, DATABASE_IS_OPEN)
            code = process.wait()
            if self._stopping.is_set():
                return
            log.error("the server of the dashboard ended; streams run without it", exit_code=code)
            self._stopping.wait(wait)
            wait = min(2 * wait, RETRY_SECONDS)


def _started(config: Config) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        # -P: a folder of the working directory must not hide a package.
        [sys.executable, "-P", "-m", MODULE],
        env=child_environment(),
        stdin=subprocess.PIPE,
        # Ctrl-C on the terminal reaches only the daemon, which ends the process in order.
        start_new_session=True,
    )
    _tell(process, config.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
    return process


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Write a line; a process that has ended gets none."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(line)
        process.stdin.flush()
