"""kill -9 of workers in phases of a batch, and of their supervisor: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.feed import make_log
from tests.faults.stage import Stage
from tests.faults.traps import PHASES
from tests.support.kafka_server import Topics
from tests.support.supervised_daemons import SupervisedDaemon, free_port

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
ARMED = Path(__file__).parent / "armed_workers"
FEW_PHASES = ("in COMMIT", "snapshot written", "claimed", "scored")


class Scene:
    """A stage whose members are the workers of one daemon after the other."""

    def __init__(self, folder: Path, topics: Topics, url: str, seconds: int, phases: list[str]) -> None:
        self.stage = Stage(folder, topics, url, [make_log(n, seconds) for n in range(4)])
        self.port = free_port()
        tree = json.loads(self.stage.config.read_text())
        self.stage.config.write_text(json.dumps(tree | {"workers": 2, "http": {"port": self.port}}))
        self.phases = folder / "phases"
        self.phases.write_text("\n".join(phases))
        self.log = folder / "log"

    def start(self) -> SupervisedDaemon:
        environment = {"PYTHONPATH": str(ARMED), "FOREWATCH_TEST_PHASES": str(self.phases)}
        return SupervisedDaemon(self.stage.config, self.log, self.port, **environment)

    def deaths(self, running: SupervisedDaemon) -> int:
        return sum(line["exit_code"] == -9 for line in running.lines("worker ended; it is started again"))


def kill_in_phases(scene: Scene, deaths: int, supervisors: int) -> None:
    """Let workers die in their phases, kill supervisors in between, and read everything in the end."""
    stage = scene.stage
    for number in range(supervisors):
        running = scene.start()
        try:
            share = (number + 1) / (supervisors + 1)
            stage.allow(share)
            want = round(deaths * share)
            _until_died(scene, running, want)
            running.workers()
            running.process.kill()
            running.process.wait()
            _until_gone(running)
        finally:
            running.close()
    running = scene.start()
    try:
        stage.allow(1.0)
        _until_died(scene, running, deaths)
        stage.until_drained()
        running.until(running.ready, "both workers are ready")
        running.leave()
    finally:
        running.close()


def _until_died(scene: Scene, running: SupervisedDaemon, deaths: int) -> None:
    running.until(lambda: scene.deaths(running) >= deaths, f"{deaths} workers died")


def _until_gone(running: SupervisedDaemon) -> None:
    running.until(lambda: running.alive() == [], "no worker is left")


def check_nothing_lost(scene: Scene) -> None:
    figures = scene.stage.account()
    assert figures.problems == []
    assert (figures.lost, figures.twice) == (0, 0)


@pytest.mark.timeout(300)
def test_workers_and_their_supervisor_die(tmp_path: Path, topics: Topics, schema_url: str):
    scene = Scene(tmp_path / "scene", topics, schema_url, 150, list(FEW_PHASES))
    try:
        kill_in_phases(scene, deaths=len(FEW_PHASES), supervisors=1)
        check_nothing_lost(scene)
    finally:
        scene.stage.close()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_workers_die_in_every_phase(tmp_path: Path, topics: Topics, schema_url: str):
    """``pytest -m long tests/faults/test_workers.py``."""
    scene = Scene(tmp_path / "scene", topics, schema_url, 600, list(PHASES))
    try:
        kill_in_phases(scene, deaths=len(PHASES) - 2, supervisors=3)
        check_nothing_lost(scene)
    finally:
        scene.stage.close()
