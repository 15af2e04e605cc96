"""Service of the daemon that lets late points revise verdicts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError
from pipeline.core.types import AnomalyState
from pipeline.engine.engine import Engine
from pipeline.services.revision import Rescored, revisable, revise
from storage.sql.database import Database

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 5.0


class RevisionService:
    """Revises verdicts, and gives the live series their corrected state."""

    def __init__(self, config: Config, database: Database) -> None:
        """Prepare the thread; ``start`` starts it."""
        self._config, self._database = config, database
        self._ready: deque[Rescored] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revisions", daemon=True)

    def start(self) -> None:
        """Start the thread, if history is recorded."""
        self._thread.start()

    def use_config(self, config: Config) -> None:
        """Continue with another config."""
        self._config = config

    def stop(self) -> None:
        """End the thread; a revision that is under way is finished first."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def apply(self, engines: Mapping[str, Engine]) -> None:
        """Replace states by corrected ones; called by the loop between two batches.

        A series that has had points since keeps its state.
        """
        while self._ready:
            right = self._ready.popleft()
            if (engine := engines.get(right.stream)) is not None:
                _hand_over(engine, right)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            if not self._config.storage.history:
                continue
            for name, stream in self._config.streams.items():
                if not revisable(stream):
                    continue
                try:
                    right = revise(self._database, self._config, name)
                except (ForewatchError, OSError) as error:
                    log.warning("late points cannot revise their series yet", stream=name, error=str(error))
                    continue
                if right is not None:
                    self._ready.append(right)
                    log.info("late points revised their series", stream=name, series=len(right.names))


def _hand_over(engine: Engine, right: Rescored) -> dict[str, int]:
    """Give series without newer points their state and open anomalies.

    Returns:
        These series, and the time of their newest point in ns.
    """
    scorer = engine.parts.scorer
    if scorer.provenance.model_version != right.model_version:
        return {}
    windows = scorer.series.state["windows"]
    slots = {name: slot for slot, name in enumerate(scorer.names()) if name is not None}
    rows = [
        row
        for row, name in enumerate(right.names)
        if name in slots and windows["last_time"][slots[name]] == right.newest[name]
    ]
    names = [right.names[row] for row in rows]
    scorer.overwrite_state(names, {key: array[rows] for key, array in right.state.items()})
    for anomaly in right.anomalies:
        slot = slots.get(anomaly.series)
        known = anomaly.series in names and slot is not None and slot not in scorer.tracker
        if known and anomaly.state is AnomalyState.OPEN and slot is not None:
            seq = int(windows["seq"][slot])
            moved = seq - right.seq[anomaly.series]
            anomaly.last_flag_seq += moved
            anomaly.first_flag_seq += moved
            anomaly.told_seq += moved
            anomaly.revision = max(anomaly.revision, 1)
            scorer.tracker.restore(slot, anomaly, seq)
    return {name: right.newest[name] for name in names}
