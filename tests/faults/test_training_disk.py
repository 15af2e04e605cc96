"""A training worker whose disk of models is full.

The job fails with the reason, and succeeds once there is room. It is left out of the usual run, because it
starts a runner and a Dask worker: ``pytest -m long tests/faults/test_training_disk.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.jobs.runner_process import RunnerProcess
from storage.model_store import jobs, models
from storage.sql.database import Database
from tests.faults.test_retraining_faults import check_one_version, queue, stored, wait_for
from tests.support.trainings import config_of, tide, write_history

pytestmark = [pytest.mark.postgres, pytest.mark.long]
BYTES = 8 << 20


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the ballast that fills the file system of the models."""
    folder = tmp_path / "models"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can mount a small file system (Linux)")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "none", str(folder)]
    if (made := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no file system can be mounted: {made.stderr.strip()}")
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield ballast
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.timeout(600)
def test_a_training_waits_for_room_on_its_disk(schema_url: str, tmp_path: Path, full_disk: Path):
    config, database = config_of(schema_url, tmp_path), Database(schema_url)
    write_history(config, {f"press-{i}": tide(300, i) for i in range(2)})
    number, runner = queue(config, database), RunnerProcess()
    try:
        runner.ensure(config)
        wait_for(lambda: stored(database, number).state in jobs.ENDED_STATES, "the job ended")
        failed = stored(database, number)
        assert failed.state == "failed"
        assert "No space left on device" in f"{failed.reason} {failed.error}"
        with database.read() as connection:
            assert models.query(connection) == []
        full_disk.unlink()
        with database.begin() as connection:
            jobs.retry(connection, number)
        runner.ensure(config)
        wait_for(lambda: stored(database, number).state in jobs.ENDED_STATES, "the job ended again")
        check_one_version(database, number)
    finally:
        runner.stop()
        database.close()
