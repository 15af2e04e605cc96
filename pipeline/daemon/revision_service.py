"""Service of the daemon that lets late points revise verdicts."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from pipeline.config.schema import Config
from pipeline.engine.engine import Engine
from pipeline.observability.metrics import Metrics, RevisionMetrics
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.revision import revisable
from pipeline.services.series_revision import StreamRevision
from storage.history.writer import HistoryWriter
from storage.sql.database import Database

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 2.0


class RevisionService:
    """Thread that scores the series of late points again, for the loop to commit."""

    def __init__(self) -> None:
        """Prepare the thread; ``start`` starts it."""
        self._active: list[tuple[StreamRevision, Engine]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revisions", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def use_config(self, config: Config) -> None:
        """Do nothing: engines that are built from now on bring their config."""

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def follow(self, engines: Mapping[str, Engine]) -> None:
        """Work for these engines from now on."""
        self._active = [(one, engine) for engine in engines.values() for one in _sinks(engine)]

    def apply(self, engine: Engine) -> None:
        """Commit what was prepared; called by the loop between two batches."""
        for revision in _sinks(engine):
            revision.apply(engine)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            for revision, engine in self._active:
                if self._stop.is_set():
                    return
                try:
                    revision.prepare(engine, self._stop.wait)
                except Exception as error:  # the next attempt may succeed, and other streams go on
                    log.warning(
                        "late points cannot revise their series yet", stream=revision.name, error=repr(error)
                    )


def revisions_of(
    config: Config,
    name: str,
    database: Database,
    scorer: StreamScorer,
    writer: HistoryWriter | None,
    metrics: Metrics,
) -> list[StreamRevision]:
    """Return the sinks of a new engine: one if its verdicts can be revised.

    Args:
        config: The whole configuration.
        name: Name of the stream.
        database: The database.
        scorer: The scorer of the engine.
        writer: Writer of the recorded history, None without one.
        metrics: Metrics of the process.
    """
    if writer is None or not revisable(config.streams[name]):
        return []
    return [StreamRevision(name, config, database, scorer, writer.flush, RevisionMetrics(metrics, name))]


def _sinks(engine: Engine) -> list[StreamRevision]:
    return [one for one in engine.parts.sinks if isinstance(one, StreamRevision)]
