"""Run of a detector over a data set, in batches and processes.

A run can be resumed. A series that fails is reported, and the others continue.

entries ─► read ─► batches ─► score (reused from disk if it is valid) ─► Run
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import structlog
from numpy.typing import NDArray

import detectors
from detectors import DetectorSpec
from detectors.composite.presets import PRESETS
from detectors.composite.warmup import compile_kernels
from detectors.thresholds import THRESHOLDS
from pipeline.config.diagnostics import closest, other_detector
from pipeline.core.errors import ForewatchError, InputError
from pipeline.evaluate import layouts
from pipeline.evaluate.code_version import code_digest
from pipeline.evaluate.layouts import Entry, Labelled
from pipeline.evaluate.network_training import other_forecaster, train_on
from pipeline.evaluate.score_store import Store
from pipeline.evaluate.scoring_run import YARDSTICKS, Scores, score_series
from pipeline.evaluate.stream_comparison import network_named
from pipeline.observability.progress_bar import Progress, progress

log = structlog.get_logger(__name__)

#: Series that are scored side by side in one batched step. More are faster; an interruption loses one batch.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """Settings of one evaluation.

    forecaster: live kind of network that is trained on the rows that are not measured; "": the packaged LSTM.
    alarm_rate: None for the default.
    """

    dataset: Path
    layout: str
    detector: str = "standard"
    preset: str = "sensor"
    threshold: str = "static"
    scores: Path | None = None
    jobs: int = 1
    limit: int | None = None
    decision: str = "usual_range"
    forecaster: str = ""
    alarm_rate: float | None = None

    @property
    def key(self) -> str:
        """Return everything on which the scores depend."""
        names = (self.detector, self.preset, self.threshold, self.decision, self.layout)
        rate = "" if self.alarm_rate is None else f"{self.alarm_rate:g}"
        return " ".join(filter(None, (*names, self.forecaster, rate, code_digest())))


@dataclass(slots=True)
class Run:
    """Series with their scores, and errors: name → message.

    ``seconds`` is the time of scoring, summed over processes.
    """

    task: EvaluationTask
    series: list[Labelled] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def points(self) -> int:
        return sum(map(len, self.series))


@dataclass(slots=True)
class _Done:
    scores: list[tuple[int, Scores]]  # index within the batch
    errors: dict[str, str]
    seconds: float


def evaluate(task: EvaluationTask) -> Run:
    """Score every series of the data set.

    Raises InputError if there is nothing to score. A series that fails is an entry of ``errors``.
    """
    start = time.monotonic()
    check_names(task)
    entries = layouts.find(task.dataset, task.layout, task.limit)
    run = Run(task)
    halves = {entry.name: entry.half for entry in entries}
    store = Store.open(task.scores, task.detector, task.key, task.layout == "nab") if task.scores else None
    todo = []
    for series in _read(entries, run.errors):
        if store is not None and (seconds := store.finished(series)) is not None:
            _take(run, [(series, store.get(series))], seconds)
        else:
            todo.append(series)
    batches = _batches(todo, max(task.jobs, 1))
    network = train_on([*todo, *run.series], task.forecaster, task.detector, task.preset) if todo else None
    with progress(f"{task.detector} on {task.dataset.name}", "points", sum(map(len, todo))) as bar:
        for batch, done in _score(task, batches, bar, network):
            pairs = [(batch[i], scores) for i, scores in done.scores]
            run.errors |= done.errors
            if store is not None:
                share = done.seconds / max(sum(len(series) for series, _ in pairs), 1)
                store.put({series.name: share * len(series) for series, _ in pairs}, pairs)
            _take(run, pairs, done.seconds)
    order = sorted(range(len(run.series)), key=lambda i: run.series[i].name)
    run.series, run.scores = [run.series[i] for i in order], [run.scores[i] for i in order]
    run.halves = [halves[series.name] for series in run.series]
    run.wall_seconds = time.monotonic() - start
    return run


def check_names(task: EvaluationTask) -> None:
    """Raise InputError for a name of the task that does not exist."""
    known = (*detectors.names(), *YARDSTICKS)
    if task.detector not in known:
        raise InputError(f"no detector {task.detector}: {other_detector(task.detector, known)}")
    if task.preset not in PRESETS:
        raise InputError(f"no preset {task.preset}: {closest(task.preset, PRESETS)}")
    if task.forecaster and network_named(task.forecaster) is None:
        raise InputError(f"no forecaster {task.forecaster}: {other_forecaster(task.forecaster)}")
    if task.forecaster and task.detector not in ("standard", "strong"):
        raise InputError(f"--forecaster {task.forecaster}: detector {task.detector} has no network")
    if task.threshold not in THRESHOLDS:
        raise InputError(f"no threshold {task.threshold}: {closest(task.threshold, THRESHOLDS)}")


def score_yardstick(run: Run, name: str) -> Run:
    """Return the run with the scores of a yardstick."""
    return Run(run.task, run.series, [YARDSTICKS[name](series) for series in run.series], run.halves)


def _take(run: Run, pairs: Iterable[tuple[Labelled, Scores]], seconds: float) -> None:
    for series, scores in pairs:
        run.series.append(series)
        run.scores.append(scores)
    run.seconds += seconds


def _read(entries: list[Entry], errors: dict[str, str]) -> Iterator[Labelled]:
    for entry in entries:
        try:
            yield entry.read()
        except ForewatchError as error:
            _fail(errors, entry.name, error)


def _fail(errors: dict[str, str], name: str, error: Exception) -> None:
    errors[name] = str(error) if isinstance(error, ForewatchError) else f"{type(error).__name__}: {error}"
    log.warning("series failed", series=name, error=errors[name])


def _batches(series: list[Labelled], jobs: int) -> list[list[Labelled]]:
    """Group series of the same channels and about the same length into batches.

    Equal lengths keep the waiting short; there is at least one batch for each process.
    """
    size = min(_BATCH, max(1, -(-len(series) // jobs)))
    groups: dict[tuple[str, ...], list[Labelled]] = {}
    for one in sorted(series, key=len):
        groups.setdefault(one.channels, []).append(one)
    return list(
        chain.from_iterable(
            [group[i : i + size] for i in range(0, len(group), size)] for group in groups.values()
        )
    )


def _score(
    task: EvaluationTask,
    batches: list[list[Labelled]],
    bar: Progress,
    network: Mapping[str, NDArray[Any]] | None,
) -> Iterator[tuple[list[Labelled], _Done]]:
    work = partial(_score_batch, task, network)
    if task.jobs <= 1 or len(batches) <= 1:
        results: Iterable[_Done] = map(work, batches)
        yield from _advance(zip(batches, results, strict=True), bar)
        return
    # Spawned, not forked: a fork would copy torch's threads and any accelerator context in an unusable state.
    with ProcessPoolExecutor(task.jobs, mp_context=get_context("spawn")) as pool:
        yield from _advance(zip(batches, pool.map(work, batches), strict=True), bar)


def _advance(
    pairs: Iterable[tuple[list[Labelled], _Done]], bar: Progress
) -> Iterator[tuple[list[Labelled], _Done]]:
    for batch, done in pairs:
        bar.advance(sum(map(len, batch)))
        yield batch, done


@cache
def _compile(detector: str, preset: str, threshold: str, decision: str, channels: tuple[str, ...]) -> None:
    """Compile the detector, so that its measured speed excludes compilation."""
    with suppress(Exception):  # a detector that cannot run at all gives an error for each series
        compile_kernels(
            detectors.build(
                DetectorSpec(
                    tier=detector, preset=preset, channels=channels, threshold=threshold, decision=decision
                )
            )
        )


def _score_batch(
    task: EvaluationTask, network: Mapping[str, NDArray[Any]] | None, batch: list[Labelled]
) -> _Done:
    """Score a batch; if it fails, score each series alone.

    One bad series then does not affect the others.
    """
    start = time.monotonic()
    if task.detector in YARDSTICKS:
        scores = [(i, YARDSTICKS[task.detector](series)) for i, series in enumerate(batch)]
        return _Done(scores, {}, time.monotonic() - start)
    _compile(task.detector, task.preset, task.threshold, task.decision, batch[0].channels)
    start = time.monotonic()
    try:
        scored = score_series(
            batch,
            task.detector,
            task.preset,
            task.threshold,
            task.decision,
            weights=network,
            alarm_rate=task.alarm_rate,
        )
        return _Done(list(enumerate(scored)), {}, time.monotonic() - start)
    except Exception as error:
        # one series that breaks a detector under development must not stop the run
        if len(batch) == 1:
            errors: dict[str, str] = {}
            _fail(errors, batch[0].name, error)
            return _Done([], errors, time.monotonic() - start)
    alone = [_score_batch(task, network, [series]) for series in batch]
    pairs = [(i, scores) for i, done in enumerate(alone) for _, scores in done.scores]
    return _Done(
        pairs, dict(chain.from_iterable(done.errors.items() for done in alone)), time.monotonic() - start
    )
