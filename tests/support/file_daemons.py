"""A daemon over files in a thread of its own, for tests of several streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.core.types import Anomaly, Fault
from pipeline.daemon.daemon import Daemon
from pipeline.observability.health import Health
from pipeline.observability.metrics import Metrics
from pipeline.observability.watchdog import Watchdog
from storage.results import anomalies, faults
from storage.sql.database import Database
from storage.stream_state import positions

FORMAT = {"csv": {"series": ["s"], "time": "t", "values": ["v"]}}


def stream(path: Path, *, follow: bool = True) -> dict:
    source = {"files": {"paths": [str(path)], "follow": follow}}
    return {"source": source, "format": FORMAT, "detector": "light", "every": "1s", "decision": "surprise"}


class Running:
    """A daemon in a thread of its own, and what can be seen of it."""

    def __init__(self, folder: Path, template: Path, streams: dict, snapshot_every: str = "100ms") -> None:
        url = f"sqlite:///{folder}/forewatch.db"
        if not (folder / "forewatch.db").exists():
            (folder / "forewatch.db").write_bytes(template.read_bytes())
        storage = {"history": False, "snapshot_every": snapshot_every}
        config = Config.model_validate(
            {"database": url, "http": None, "storage": storage, "streams": streams}
        )
        self.database = Database(url)
        self.stopping = threading.Event()
        self.watchdog = Watchdog(600.0)
        self.health = Health(self.watchdog)
        self.daemon = Daemon(config, self.database, Metrics(), self.health, self.stopping)
        self.thread = threading.Thread(target=self.daemon.run, args=(lambda: None,), daemon=True)
        self.thread.start()

    def read(self, name: str) -> int:
        """Return how many records of a stream are committed."""
        with self.database.read() as connection:
            return sum(p.next_offset or 0 for p in positions.all_of(connection, name))

    def buffered(self, name: str) -> int:
        """Return how many read records of a stream wait for the watermark."""
        with self.database.read() as connection:
            return sum(p.counts.buffered for p in positions.all_of(connection, name))

    def faults(self, name: str) -> list[Fault]:
        with self.database.read() as connection:
            return faults.query(connection, stream=name)

    def found(self, name: str) -> list[Anomaly]:
        """Return the anomalies of a stream."""
        with self.database.read() as connection:
            return anomalies.query(connection, stream=name)

    def open_faults(self, name: str) -> list[Fault]:
        return [fault for fault in self.faults(name) if fault.ended_ns is None]

    def until(self, condition: Callable[[], object], seconds: float = 180.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.thread.is_alive(), "the daemon has ended"
            assert time.monotonic() < end, f"{self.faults('bad')}, {self.health.waiting()}"
            time.sleep(0.05)


@contextmanager
def running(folder: Path, template: Path, streams: dict, **settings: str) -> Iterator[Running]:
    one = Running(folder, template, streams, **settings)
    try:
        yield one
    finally:
        one.stopping.set()
        one.thread.join(60)
        one.daemon.close()
        one.database.close()
