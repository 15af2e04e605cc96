"""A backfill that is killed leaves rows behind; the next whole one deletes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import update

from pipeline.core.types import Partition
from pipeline.services.backfill import DEAD_AFTER_NS
from storage.sql.database import Database
from storage.stream_state import positions
from storage.stream_state import reader as stored_readers
from storage.tables.stream import PositionRow

FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]
PARTITION = Partition("t", 0)


def readers(database: Database, stream: str = "plant") -> list[str]:
    with database.read() as connection:
        return stored_readers.names(connection, f"{stream} (backfill ")


def test_killed_backfill_is_cleared_by_the_next_whole_one(database: Database, database_url, tmp_path: Path):
    rows = "".join(f"{1_750_000_000 + i},s{i % 50},{i % 17}\n" for i in range(200_000))
    (tmp_path / "long.csv").write_text("ts,s,v\n" + rows)
    (tmp_path / "short.csv").write_text("ts,s,v\n" + rows[:2000].rpartition("\n")[0] + "\n")
    (tmp_path / "forewatch.yaml").write_text(f"""\
database: {database_url}
http: null
engine: {{max_batch: 500}}
streams:
  plant:
    source: {{memory: {{}}}}
    format: {{csv: {{series: s, time: ts, values: v}}}}
    detector: light
""")
    command = [*FOREWATCH, "backfill", "forewatch.yaml", "-s", "plant", "-i"]
    with subprocess.Popen([*command, "long.csv"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not readers(database) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert len(readers(database)) == 1

    host = os.uname().nodename
    others = {
        "plant (backfill 11111111)": f"{host}:{os.getpid()}",  # runs
        "plant (backfill 22222222)": "elsewhere:7",  # may run
        "plant (backfill 33333333)": "elsewhere:8",  # silent for long
        "plant2 (backfill 44444444)": f"{host}:999999999",  # of another stream
    }
    for name, owner in others.items():
        positions.acquire(database, name, PARTITION, owner, "")
    with database.begin() as connection:
        connection.execute(
            update(PositionRow)
            .where(PositionRow.owner == "elsewhere:8")
            .values(updated_ns=time.time_ns() - DEAD_AFTER_NS - 10**9)
        )
    subprocess.run([*command, "short.csv"], cwd=tmp_path, check=True, capture_output=True, timeout=240)
    assert sorted(readers(database)) == ["plant (backfill 11111111)", "plant (backfill 22222222)"]
    assert readers(database, "plant2") == ["plant2 (backfill 44444444)"]
