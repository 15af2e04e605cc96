"""Reports on models in the demo: training, result, promotion and rollback."""

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

#: Time from a promotion to the rollback that the demo makes to show it.
ROLL_BACK_SECONDS = 15.0
#: Time after which a daemon certainly uses a promoted version.
SWAP_SECONDS = 3.0


class ModelReporter:
    """Reads jobs and promotions from the database and prints what is new."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._printed: dict[int, tuple[str, int]] = {}  # job → its state, and epochs printed
        self._promotions = 0
        self._roll_back_at: float | None = None
        self._rolled_back_stream = ""
        self._promoted_at: dict[str, float] = {}
        self.rolled_back = False

    def has_model(self, stream: str) -> bool:
        """Return whether the daemon uses a version that was trained for a stream."""
        at = self._promoted_at.get(stream)
        return at is not None and time.monotonic() >= at + SWAP_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Check twice a second until ``stop`` is set."""
        database = Database(self._config.database)
        try:
            while not stop.wait(0.5):
                try:
                    self._check_database(database)
                except (StorageError, ChampionChanged):
                    continue  # The daemon reports the state of the database.
        finally:
            database.close()

    def _check_database(self, database: Database) -> None:
        with database.read() as connection:
            found = jobs.query(connection, limit=20)
            changes = models.promotions(connection)
        for job in reversed(found):
            self._print_job(database, job)
        for change in list(reversed(changes))[self._promotions :]:
            self._print_promotion(change)
        self._promotions = len(changes)
        if self._roll_back_at is not None and time.monotonic() >= self._roll_back_at:
            self._roll_back_at = None
            self._roll_back(database)

    def _print_job(self, database: Database, job: Job) -> None:
        if job.kind != "train":
            return
        state, epochs = self._printed.get(job.id, ("", 0))
        if not state:
            self._say(
                f"[model] job {job.id}: training of the model of stream {job.stream} is due "
                f"(trigger: {job.trigger})"
            )
        epoch = job.progress.get("epoch", 0)
        if epoch > epochs and "held_out" in job.progress:  # not the many short passes of a model of events
            self._say(
                f"[model] job {job.id}: epoch {epoch} of {job.progress['epochs']}, validation loss "
                f"{job.progress['held_out']:.3f}"
            )
        if job.state != state and job.state in jobs.ENDED_STATES:
            self._say(
                f"[model] job {job.id} {job.state} after {job.cost.get('cpu_seconds', 0):.0f} s of "
                f"CPU time: {job.reason}"
            )
            self._print_backtest(database, job)
        self._printed[job.id] = job.state, max(epochs, epoch)

    def _print_backtest(self, database: Database, job: Job) -> None:
        version = job.result.get("version")
        if version is None:
            return
        with database.read() as connection:
            card = models.get(connection, version).evidence.get("backtest", {}).get("text", "")
        for line in card.splitlines():
            self._say(f"    {line}")

    def _print_promotion(self, change: Promotion) -> None:
        of_events = self._config.streams[change.stream].of_events
        initial = "no model" if of_events else "the packaged model"
        to, before = change.to_version or initial, change.from_version or initial
        self._promoted_at.setdefault(change.stream, time.monotonic())
        self._say(
            f"[model] {change.action} by {change.author}: stream {change.stream} uses {to} "
            f"from the next batch on (before: {before})"
        )
        if change.action == "promote" and not of_events and not self._rolled_back_stream:
            self._roll_back_at = time.monotonic() + ROLL_BACK_SECONDS
            self._rolled_back_stream = change.stream
            self._say(
                f"[model] rollback in {ROLL_BACK_SECONDS:.0f} s, to show `forewatch models "
                f"rollback --stream {change.stream}`"
            )

    def _roll_back(self, database: Database) -> None:
        self.rolled_back = True
        try:
            with database.begin() as connection:
                roll_back(
                    connection,
                    self._rolled_back_stream,
                    author="demo",
                    reason="demonstration",
                    now_ns=time.time_ns(),
                )
        except InputError:
            pass  # The post-promotion check was faster.
