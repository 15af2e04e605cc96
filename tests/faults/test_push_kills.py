"""kill -9 of a daemon that receives: what was answered is scored exactly once."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import httpx
import pytest

from storage.history.reader import HistoryReader
from storage.sql.database import Database
from storage.stream_state import positions
from tests.faults.member import Member, wait_for
from tests.support.postgres_server import free_port
from tests.support.remote_write import post

T = 1_764_028_800_000
SENDERS, KILLS = 3, 3
CONFIG = """\
database: sqlite:///{folder}/forewatch.db
http: null
storage: {{snapshot_every: 1s}}
streams:
  plant:
    source: {{push: {{port: {port}}}}}
    format: {{remote_write: {{}}}}
    detector: light
    every: 1s
    revise: 0s
"""


class Sender(threading.Thread):
    """Sends the points of a series in order, each until it is answered with 2xx."""

    def __init__(self, url: str, name: str, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.series, self.stopping = url, name, stopping
        self.answered = 0
        self.repeated = 0
        self.refused: str | None = None

    def run(self) -> None:
        client = httpx.Client(verify=False)  # loading certificates takes long
        while not self.stopping.is_set():
            samples = [(float(self.answered % 7), T + 1000 * self.answered)]
            try:
                answer = post(client, self.url, [({"__name__": self.series}, samples)])
            except httpx.TransportError:
                self.repeated += 1
                time.sleep(0.02)
                continue
            if answer.status_code != 204:
                self.refused = answer.text
                return
            self.answered += 1


@pytest.mark.timeout(500)
def test_what_was_answered_is_scored_exactly_once(tmp_path: Path, sqlite_template: Path) -> None:
    port, config = free_port(), tmp_path / "forewatch.yaml"
    config.write_text(CONFIG.format(port=port, folder=tmp_path))
    shutil.copy(sqlite_template, tmp_path / "forewatch.db")
    stopping = threading.Event()
    senders = [Sender(f"http://127.0.0.1:{port}/push/plant", f"s{n}", stopping) for n in range(SENDERS)]
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    rng, members = random.Random(5), [Member(config, tmp_path / "member0")]

    def answered() -> int:
        return sum(sender.answered for sender in senders)

    try:
        for sender in senders:
            sender.start()
        for kill in range(KILLS):
            wanted = answered() + rng.randrange(60, 400)
            wait_for(lambda wanted=wanted: answered() >= wanted, "it answers", 120)  # type: ignore[misc]
            members[-1].kill()
            members.append(Member(config, tmp_path / f"member{kill + 1}"))
        wanted = answered() + 100
        members[-1].until(lambda: answered() >= wanted, "it answers", 120)
        stopping.set()
        for sender in senders:
            sender.join(60)
        members[-1].until(lambda: _scored(database) >= answered(), "all of it is scored", 120)
        members[-1].leave(120)
    finally:
        stopping.set()
        members[-1].kill()
    assert all(sender.refused is None for sender in senders)
    history = HistoryReader(str(tmp_path / "forewatch.db.history")).read("plant").to_pandas()
    points = sorted(zip(history["series"].astype(str), history["time"].astype("int64"), strict=True))
    assert points == sorted(
        (sender.series, (T + 1000 * n) * 1_000_000) for sender in senders for n in range(sender.answered)
    )
    with database.read() as connection:
        (position,) = positions.all_of(connection, "plant")
    assert (position.counts.dead_lettered, position.counts.late) == (0, 0)
    assert position.counts.scored == answered()
    assert position.counts.duplicate <= sum(sender.repeated for sender in senders)
    database.close()


def _scored(database: Database) -> int:
    with database.read() as connection:
        return sum(position.counts.scored for position in positions.all_of(connection, "plant"))
