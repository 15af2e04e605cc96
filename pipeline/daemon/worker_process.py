"""The supervisor's handle of a worker process (``pipeline.daemon.worker_main``)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from pipeline.core.child_environment import child_environment
from pipeline.core.stop_signals import reloads_held
from pipeline.daemon.worker_channel import SupervisorEnd, WorkerStatus

MODULE = "pipeline.daemon.worker_main"


class WorkerProcess:
    """The supervisor's handle of a running worker."""

    def __init__(self, number: int, config: Path) -> None:
        """Start the process.

        Args:
            number: Number of the worker, from 0.
            config: The config file.
        """
        self.number = number
        self.started_at = time.monotonic()
        self._cpu_seconds = 0.0
        self._channel = SupervisorEnd()
        inherited = self._channel.inherited
        options = [f"--worker={number}", f"--supervisor={os.getpid()}", "--descriptors", *map(str, inherited)]
        # The worker inherits that SIGHUP is held, and releases it when it can reload.
        with reloads_held():
            # -P: a folder of the working directory must not hide a package.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(config), *options],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
            )
        self._channel.close_inherited()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def status(self) -> WorkerStatus:
        """Newest status that was read."""
        return self._channel.status

    @property
    def channel(self) -> SupervisorEnd:
        """Connection to the process."""
        return self._channel

    def exit_code(self) -> int | None:
        """Return the exit code, −N after signal N; None while it runs."""
        return self._process.poll()

    def works_at_its_start(self) -> bool:
        """Return whether it has sent no status yet, but has used CPU since the last call.

        On a machine with many busy processes the imports alone take minutes.
        """
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return False
        before, self._cpu_seconds = self._cpu_seconds, times.user + times.system
        return not self._channel.heard and self._cpu_seconds > before

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        self._process.send_signal(signum)

    def close(self) -> None:
        """Free the connection of a worker that has ended."""
        self._channel.close()
