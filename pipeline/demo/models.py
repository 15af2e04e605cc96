"""The life of a model, told while it happens: a due training, its progress, the evidence, a promotion, and a
rollback to show that too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline.config.schema import Config
from pipeline.core.errors import InputError, StorageError
from pipeline.models.promotion import roll_back
from storage.model_store import jobs, models
from storage.model_store.jobs import Job
from storage.model_store.models import ChampionChanged, Promotion
from storage.sql.database import Database

#: For so long the demo lets a promoted version decide before it takes it back.
ROLL_BACK_SECONDS = 15.0


class ModelStory:
    """Reads jobs, versions and promotions as any other program would, and says what is new."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._told: dict[int, tuple[str, int]] = {}  # job → its state, and epochs told
        self._promotions = 0
        self._roll_back_at: float | None = None
        self.rolled_back = False

    def run(self, stop: threading.Event) -> None:
        """Look twice a second until ``stop`` is set."""
        database = Database(self._config.database)
        try:
            while not stop.wait(0.5):
                try:
                    self._look(database)
                except (StorageError, ChampionChanged):
                    continue  # the daemon says what is wrong with the database
        finally:
            database.close()

    def _look(self, database: Database) -> None:
        with database.read() as connection:
            found = jobs.query(connection, limit=20)
            changes = models.promotions(connection)
        for job in reversed(found):
            self._tell(database, job)
        for change in list(reversed(changes))[self._promotions :]:
            self._changed(change)
        self._promotions = len(changes)
        if self._roll_back_at is not None and time.monotonic() >= self._roll_back_at:
            self._roll_back_at = None
            self._roll_back(database)

    def _tell(self, database: Database, job: Job) -> None:
        if job.kind != "train":
            return
        state, epochs = self._told.get(job.id, ("", 0))
        if not state:
            self._say(f"≈ job {job.id}: the model of {job.stream} is to be trained again (by {job.trigger})")
        epoch = job.progress.get("epoch", 0)
        if epoch > epochs:
            self._say(
                f"≈ job {job.id}: epoch {epoch} of {job.progress['epochs']}, held-out loss {job.progress['held_out']:.3f}"
            )
        if job.state != state and job.state in jobs.ENDED_STATES:
            self._say(
                f"≈ job {job.id} {job.state} after {job.cost.get('cpu_seconds', 0):.0f} s of CPU: {job.reason}"
            )
            self._evidence(database, job)
        self._told[job.id] = job.state, max(epochs, epoch)

    def _evidence(self, database: Database, job: Job) -> None:
        version = job.result.get("version")
        if version is None:
            return
        with database.read() as connection:
            card = models.get(connection, version).evidence.get("backtest", {}).get("text", "")
        for line in card.splitlines():
            self._say(f"    {line}")

    def _changed(self, change: Promotion) -> None:
        to, before = (
            change.to_version or "what came with forewatch",
            change.from_version or "what came with forewatch",
        )
        self._say(
            f"≈ {change.action} by {change.author}: {to} decides in stream {change.stream} from the next batch on, not {before}"
        )
        if change.action == "promote" and not self.rolled_back:
            self._roll_back_at = time.monotonic() + ROLL_BACK_SECONDS
            self._say(
                f"  In {ROLL_BACK_SECONDS:.0f} s the demo takes it back, as `forewatch models rollback --stream {change.stream}` does."
            )

    def _roll_back(self, database: Database) -> None:
        self.rolled_back = True
        with database.read() as connection:
            streams = {change.stream for change in models.promotions(connection)}
        for stream in streams:
            try:
                with database.begin() as connection:
                    roll_back(connection, stream, author="demo", reason="to show it", now_ns=time.time_ns())
            except InputError:
                continue  # the guard was faster
