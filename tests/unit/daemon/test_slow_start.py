"""A worker that starts slowly is left alone, one that hangs is replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config.schema import Config
from pipeline.daemon import supervisor, worker_process
from pipeline.daemon.worker_channel import SupervisorEnd
from pipeline.daemon.worker_process import WorkerProcess
from tests.support.file_daemons import stream

LIMIT_SECONDS = 120.0


class StartingWorker(WorkerProcess):
    """Handle of this process, as if it were a worker that has just started."""

    def __init__(self, started_at: float) -> None:
        self.number, self.started_at = 0, started_at
        self.signals: list[int] = []
        self._cpu_seconds = 0.0
        self._channel = SupervisorEnd()
        self._channel.heard_at = started_at

    @property
    def pid(self) -> int:
        return os.getpid()

    def send(self, signum: signal.Signals) -> None:
        self.signals.append(signum)


class Scene:
    """A supervisor, its clock, and the CPU time of its worker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.now, self.cpu_seconds = 1000.0, 0.0
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(
            worker_process.psutil,
            "Process",
            lambda pid: SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=self.cpu_seconds, system=0.0)),
        )
        config = {"http": None, "engine": {"watchdog": f"{LIMIT_SECONDS:.0f}s"}}
        config |= {
            "database": f"sqlite:///{folder}/forewatch.db",
            "streams": {"plant": stream(folder / "*.csv")},
        }
        self.supervisor = supervisor.Supervisor(folder / "x.yaml", Config.model_validate(config), 1)
        self.worker = StartingWorker(self.now)

    def wait(self, seconds: float, cpu_seconds: float) -> None:
        self.now += seconds
        self.cpu_seconds += cpu_seconds
        self.supervisor._end_silent(self.worker)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    made = Scene(monkeypatch, tmp_path)
    yield made
    made.worker.close()


def test_a_start_that_uses_the_cpu_may_take_long(scene):
    for _ in range(5):
        scene.wait(LIMIT_SECONDS + 1, cpu_seconds=0.5)
    assert not scene.worker.signals


def test_a_start_that_hangs_is_ended(scene):
    scene.wait(LIMIT_SECONDS + 1, cpu_seconds=0.5)
    scene.wait(LIMIT_SECONDS - 1, cpu_seconds=0.0)
    assert not scene.worker.signals
    scene.wait(2, cpu_seconds=0.0)
    assert scene.worker.signals == [signal.SIGKILL]


def test_a_start_that_never_ends_is_ended(scene):
    for _ in range(supervisor.MAX_START_LIMITS):
        scene.wait(LIMIT_SECONDS + 1, cpu_seconds=100.0)
    assert scene.worker.signals == [signal.SIGKILL]


def test_a_worker_that_has_sent_a_status_must_go_on(scene):
    scene.worker.channel._their_status.send_bytes(b'{"idle_seconds": 0.0, "waiting": {}}')
    scene.wait(1, cpu_seconds=0.0)
    scene.worker.channel.heard_at = scene.now
    scene.wait(LIMIT_SECONDS + 1, cpu_seconds=100.0)
    assert scene.worker.signals == [signal.SIGKILL]
