"""kill -9 of workers in phases of a batch, and of their supervisor: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.tables.stream import PositionRow
from tests.faults.feed import make_log
from tests.faults.stage import Stage
from tests.faults.traps import PHASES
from tests.support.kafka_server import Topics
from tests.support.supervised_daemons import SupervisedDaemon, free_port

#: Left out of the usual run: minutes on a busy machine (``pytest -m long tests/faults/test_workers.py``).
pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.long]
ARMED = Path(__file__).parent / "armed_workers"
FEW_PHASES = ("in COMMIT", "snapshot written", "claimed", "scored")


class Scene:
    """A stage whose members are the workers of one daemon after the other."""

    def __init__(self, folder: Path, topics: Topics, url: str, seconds: int, phases: list[str]) -> None:
        self.stage = Stage(folder, topics, url, [make_log(n, seconds) for n in range(4)])
        self.stage.workers = folder
        self.port = free_port()
        tree = json.loads(self.stage.config.read_text())
        self.stage.config.write_text(json.dumps(tree | {"workers": 2, "http": {"port": self.port}}))
        self.phases = folder / "phases"
        self.phases.write_text("\n".join(phases))
        self.folder = folder

    def start(self) -> SupervisedDaemon:
        environment = {"PYTHONPATH": str(ARMED), "FOREWATCH_TEST_PHASES": str(self.phases)}
        log = self.folder / f"log-{len(list(self.folder.glob('log-*')))}"
        return SupervisedDaemon(self.stage.config, log, self.port, **environment)

    def owners(self) -> set[int]:
        """Return the process ids of the owners of the partitions."""
        with self.stage.database.read() as connection:
            return {
                int(owner.rpartition(":")[2])
                for owner in connection.execute(select(PositionRow.owner)).scalars()
            }

    def deaths(self, running: SupervisedDaemon) -> int:
        return sum(line["exit_code"] == -9 for line in running.lines("worker ended; it is started again"))


def kill_in_phases(scene: Scene, deaths: int, supervisors: int) -> None:
    """Let ``deaths`` workers of each supervisor die, kill it, and read everything at the end."""
    for _ in range(supervisors):
        running = scene.start()
        try:
            running.until(lambda: _died(scene, running, deaths), f"{deaths} workers died")  # noqa: B023
            running.workers()
            running.process.kill()
            running.process.wait()
            running.until(lambda: running.alive() == [], "no worker is left")  # noqa: B023
        finally:
            running.close()
    scene.phases.write_text("")
    running = scene.start()
    try:
        scene.stage.until_drained()
        running.until(running.ready, "both workers are ready")
        running.leave()
    finally:
        running.close()


def _died(scene: Scene, running: SupervisedDaemon, deaths: int) -> bool:
    """Return whether so many died; records come while all are ready, so that each reaches its phase."""
    if running.ready():
        scene.stage.allow(scene.stage.allowed + 0.004)
    return scene.deaths(running) >= deaths


def check_nothing_lost(scene: Scene) -> None:
    figures = scene.stage.account()
    assert figures.problems == []
    assert (figures.lost, figures.twice) == (0, 0)


@pytest.mark.timeout(400)
def test_workers_and_their_supervisor_die(tmp_path: Path, topics: Topics, schema_url: str):
    scene = Scene(tmp_path / "scene", topics, schema_url, 300, [*FEW_PHASES, *FEW_PHASES])
    try:
        kill_in_phases(scene, deaths=3, supervisors=1)
        check_nothing_lost(scene)
    finally:
        scene.stage.close()


@pytest.mark.timeout(1200)
def test_workers_die_in_every_phase(tmp_path: Path, topics: Topics, schema_url: str):
    scene = Scene(tmp_path / "scene", topics, schema_url, 900, list(PHASES))
    try:
        kill_in_phases(scene, deaths=4, supervisors=4)
        check_nothing_lost(scene)
    finally:
        scene.stage.close()


@pytest.mark.timeout(400)
def test_a_frozen_worker_loses_its_partitions_and_comes_back(tmp_path: Path, topics: Topics, schema_url: str):
    scene = Scene(tmp_path / "scene", topics, schema_url, 150, [])
    stage = scene.stage
    running = scene.start()
    try:
        running.until(running.ready, "both workers are ready")
        _read_share(stage, 0.3)
        frozen, other = running.workers()
        running.until(lambda: scene.owners() == {frozen.pid, other.pid}, "each owns partitions")
        frozen.suspend()
        running.until(lambda: scene.owners() == {other.pid}, "the other one owns all partitions")
        _read_share(stage, 0.6)
        frozen.resume()
        running.until(lambda: scene.owners() == {frozen.pid, other.pid}, "each owns partitions again")
        stage.until_drained()
        running.until(running.ready, "both workers are ready")
        assert [one.pid for one in running.workers()] == [frozen.pid, other.pid], "none was replaced"
        running.leave()
        check_nothing_lost(scene)
    finally:
        running.close()
        stage.close()


def _read_share(stage: Stage, share: float) -> None:
    stage.allow(share)
    stage.until_read(sum(round(len(log.values) * share) for log in stage.logs))
