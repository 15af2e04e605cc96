"""A member of the group: the real daemon in a process of its own, forked from a server that has everything
imported and compiled.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.faults.traps import Diary, Trap, arm
from tests.support.forked_commands import SERVER

#: Constants of the product that a member changes: (module, name) → value.
Constants = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Surroundings:
    """What a member meets that others do not.

    clock      file with the seconds by which its clock is wrong
    constants  those of the product that it changes
    network    name of its network namespace
    """

    clock: Path | None = None
    constants: Constants = field(default_factory=dict)
    network: str | None = None


def live(config: Path, folder: Path, trap: Trap | None, surroundings: Surroundings) -> None:
    """Run one member in the child process."""
    if surroundings.network is not None:
        from tests.support.network_namespaces import enter_namespace

        enter_namespace(surroundings.network)
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    diary = Diary(folder / "diary")
    diary.keep()
    if surroundings.clock is not None:
        from tests.faults.skewed_clock import CLOCK

        CLOCK.file = surroundings.clock
    for (module, name), value in surroundings.constants.items():
        setattr(importlib.import_module(module), name, value)
    if trap is not None:
        arm(trap)
    from pipeline.daemon.daemon import run_daemon

    diary.write("start", torch="torch" in sys.modules)
    code = run_daemon(config)
    diary.write("end")
    sys.exit(code)


class Member:
    """The parent's side of one member. ``folder`` gets its output and its diary."""

    def __init__(
        self,
        config: Path,
        folder: Path,
        trap: Trap | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.trap = trap
        self.started = time.monotonic()
        self.thawed: float | None = None
        self.bored = False  # it was killed because its trap did not spring
        self._process: Any = SERVER.Process(
            target=live, args=(config, folder, trap, surroundings or Surroundings()), name=folder.name
        )
        self._process.start()
        self._looked = psutil.Process(self._process.pid)

    @property
    def pid(self) -> int:
        return self._looked.pid

    @property
    def exitcode(self) -> int | None:
        """None while it lives; −9 after SIGKILL."""
        return self._process.exitcode

    @property
    def frozen(self) -> bool:
        try:
            return self._looked.status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):  # its trap was faster
            os.kill(self._process.pid, signum)

    def kill(self) -> None:
        self._process.kill()
        self._process.join(10)

    def thaw(self) -> None:
        self.thawed = time.monotonic()
        self.signal(signal.SIGCONT)

    def leave(self, timeout: float = 120.0) -> None:
        """SIGTERM: finish the batch, commit, snapshot, leave the group.

        A process that does not listen yet would just die of it.
        """
        self.until(self._listens, "it listens to signals")
        self.signal(signal.SIGTERM)
        self._process.join(timeout)
        assert self.exitcode == 0, f"exit code {self.exitcode}: {self.output()}"

    def _listens(self) -> bool:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return events_of(self.folder / "diary", kind)

    def output(self) -> str:
        path = self.folder / "output"
        return path.read_text()[-4000:] if path.exists() else "(no output)"

    def until(self, condition: Callable[[], bool], what: str, timeout: float = 120.0) -> None:
        wait_for(condition, what, timeout, lambda: self.output())


def events_of(diary: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind in a diary, which may not exist yet."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [event for line in lines if (event := json.loads(line))["event"] == kind]


def wait_for(
    condition: Callable[[], bool], what: str, timeout: float = 120.0, say: Callable[[], str] = str
) -> float:
    """Wait until ``condition`` holds; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"{what}: not within {timeout:g} s. {say()}"
        time.sleep(0.02)
    return time.monotonic() - began
