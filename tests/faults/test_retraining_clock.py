"""Several clocks, one database: each due time is one job, whoever is killed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from storage.model_store import jobs
from storage.sql.database import Database

SECOND = 1_000_000_000


@pytest.mark.postgres
def test_three_daemons_and_a_kill_make_one_job_each_due_time(schema_url):
    command = [sys.executable, "-m", "tests.faults.clock_process", schema_url]
    clocks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    database = Database(schema_url)

    def due_times(stream):
        with database.read() as connection:
            return sorted(job.due_ns // SECOND for job in jobs.query(connection, stream=stream))

    def wait_until(count):
        deadline = time.monotonic() + 120
        while len(due_times("plant")) < count:
            assert time.monotonic() < deadline, due_times("plant")
            time.sleep(0.1)

    try:
        for clock in clocks:
            assert clock.stdout.readline() == "ticking\n"
        wait_until(3)
        clocks[0].kill()  # -9
        clocks[0].wait()
        wait_until(6)
        clocks[1].kill()
        clocks[1].wait()
        wait_until(9)
        plant, edge = due_times("plant"), due_times("edge")
    finally:
        for clock in clocks:
            clock.kill()
            clock.wait()
        database.close()
    assert len(plant) == len(set(plant)), "twice"
    assert plant == list(range(plant[0], plant[0] + len(plant))), "each second, none missing"
    assert len(edge) == len(set(edge))
    assert all(second % 2 == 0 for second in edge)
    assert len(edge) >= 4
