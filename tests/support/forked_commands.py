"""Commands of forewatch, each in a process forked from a server that has imported and compiled everything.

A new interpreter spends 1 to 4 s of CPU time before a command does anything. Where the start itself is
tested, a new one is used: ``tests/unit/cli``, ``tests/integration/test_daemon_start.py``, the command blocks
of the documentation.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.faults.skewed_clock", "tests.faults.warm"])

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _live(arguments: list[str], folder: str, environment: dict[str, str], files: tuple[str, str]) -> None:
    """Run the command in the child process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (files[0], _WRITE), (files[1], _WRITE))
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["forewatch", *arguments]
    from pipeline.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a forked process skips them


class ForkedCommand:
    """A command that runs; its methods are those of ``subprocess.Popen``."""

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path,
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
    ) -> None:
        """Start it; it appends to the files ``output`` and ``errors`` (left out: both to ``output``)."""
        given = (
            list(map(str, arguments)),
            str(folder),
            dict(environment),
            (str(output), str(errors or output)),
        )
        self._process: Any = SERVER.Process(target=_live, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_command(
    arguments: Sequence[object], folder: Path, environment: Mapping[str, str], timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as ``subprocess.run`` does with ``capture_output`` and ``text``."""
    with tempfile.TemporaryDirectory() as scratch:
        output, errors = Path(scratch, "output"), Path(scratch, "errors")
        command = ForkedCommand(arguments, folder, environment, output, errors)
        try:
            code = command.wait(timeout)
        finally:
            command.kill()
        return subprocess.CompletedProcess(
            ["forewatch", *map(str, arguments)], code, *(one.read_text() for one in (output, errors))
        )
