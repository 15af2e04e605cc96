"""The replacement of a running stream's model after a promotion or rollback.

A version is loaded, checked and warmed up in the background; the loop only replaces one object by another
between two batches. A version that cannot be used is refused, and the current model stays.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from detectors.composite.warmup import compile_kernels
from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.errors import InputError
from pipeline.core.types import Fault, FaultKind
from pipeline.engine.engine import Engine
from pipeline.engine.initial_state import initial_states
from pipeline.jobs.requests import review_labels
from pipeline.models.champion import Champion, champion_of
from pipeline.observability.metrics import Metrics
from pipeline.training.dataset import newest_ns
from pipeline.training.state_fitting import RefittedSeries, refit_reviewed_series
from storage.model_store import models
from storage.results import faults
from storage.sql.database import Database

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """The version that a stream's engine uses, or will use from the next batch on.

    ``sequence`` −1: not compared with the promotions yet.
    """

    version: str | None
    sequence: int = -1


class ModelSwap:
    """The background calls ``look``, the loop ``apply``; they share nothing else."""

    def __init__(
        self, database: Database, metrics: Metrics, history: Callable[[], str | None] = lambda: None
    ) -> None:
        """``history`` returns the path of the recorded history, None if there is none."""
        self._database = database
        self._metrics = metrics.training
        self._history = history
        self._known: dict[str, _Known] = {}
        self._ready: dict[str, tuple[Champion, RefittedSeries | None]] = {}
        self._lock = threading.Lock()

    def prepare_promotions(self, streams: Mapping[str, Stream]) -> None:
        """Load the versions that were promoted since the last call.

        Raises StorageUnavailable.
        """
        for name, stream in streams.items():
            with self._database.read() as connection:
                promotion = models.current_champion(connection, name)
            known = self._known.get(name)
            if known is None or known.sequence == promotion.sequence:
                continue
            if promotion.to_version == known.version:
                self._report_usable(name)
            else:
                champion = champion_of(self._database, name, stream)
                self._report_usable(name, champion)
                if champion.version != known.version:
                    compile_kernels(champion.detector)
                    ready = champion, self._relearnt(name, stream, champion)
                    with self._lock:
                        self._ready[name] = ready
                known.version = champion.version
            known.sequence = promotion.sequence

    def apply(self, engines: Mapping[str, Engine]) -> None:
        """Install the prepared models; called between two batches."""
        for name in engines.keys() - self._known.keys():
            _, _, version = engines[name].parts.scorer.provenance.model_version.partition("+")
            self._known[name] = _Known(version or None)
            self._metrics.model_info.labels(name, engines[name].parts.scorer.provenance.model_version).set(1)
        if not self._ready:
            return
        with self._lock:
            ready, self._ready = self._ready, {}
        for name, (champion, relearnt) in ready.items():
            if (engine := engines.get(name)) is not None:
                self._exchange(name, engine, champion, relearnt)

    def forget(self, name: str) -> None:
        """Forget a stream whose engine is rebuilt with the current champion."""
        with self._lock:
            self._known.pop(name, None)
            self._ready.pop(name, None)

    def _relearnt(self, name: str, stream: Stream, champion: Champion) -> RefittedSeries | None:
        """Return the refitted state of the series with new labels.

        A recorded history that cannot be read only skips the refit.
        """
        history = self._history()
        if history is None or champion.promotion.action != "promote":
            return None
        with self._database.read() as connection:
            reviews = review_labels(connection, name)
        if not reviews:
            return None
        try:
            since_ns = newest_ns(history, name) - to_nanoseconds(stream.training_history)
            return refit_reviewed_series(
                champion.detector,
                history,
                name,
                stream,
                reviews,
                since_ns,
                partial(initial_states, self._database, champion, stream),
            )
        except (OSError, InputError) as error:
            log.warning(
                "cannot read the history; the reviewed series keep their state", stream=name, error=str(error)
            )
            return None

    def _exchange(
        self, name: str, engine: Engine, champion: Champion, relearnt: RefittedSeries | None
    ) -> None:
        scorer = engine.parts.scorer
        before = scorer.provenance.model_version
        if before == champion.provenance.model_version:
            return
        try:
            scorer.replace_detector(champion.detector, champion.provenance)
        except ValueError as error:
            log.error("cannot replace the model", stream=name, reason=str(error))
            return
        reset_count = scorer.overwrite_state(relearnt.names, relearnt.state) if relearnt is not None else 0
        if reset_count:
            engine.parts.snapshots.renew()
        self._metrics.model_exchanges.labels(name).inc()
        self._metrics.model_info.remove(name, before)
        self._metrics.model_info.labels(name, champion.provenance.model_version).set(1)
        log.info(
            "the model was replaced",
            stream=name,
            before=before,
            now=champion.provenance.model_version,
            relearnt=reset_count,
        )

    def _report_usable(self, name: str, champion: Champion | None = None) -> None:
        """Open or close the fault of a named version that cannot be used (None: already champion)."""
        refused = champion is not None and champion.refused is not None
        self._metrics.model_usable.labels(name).set(0 if refused else 1)
        now_ns = time.time_ns()
        with self._database.begin() as connection:
            if champion is None or champion.refused is None:
                faults.close(connection, name, FaultKind.MODEL_UNUSABLE, None, now_ns)
                return
            message = f"{champion.refused}. {champion.provenance.model_version} stays in use; restore the files, or run: forewatch models rollback"
            faults.save(connection, Fault(name, FaultKind.MODEL_UNUSABLE, message, now_ns))
        log.error("a model is refused", stream=name, reason=champion.refused)
