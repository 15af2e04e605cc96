"""The post-promotion check: verdicts of a new champion compared with those of its predecessor."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.jobs.task_types import IsCancelled, ReportProgress, Task, TaskResult, VersionFiles
from pipeline.training.dataset import newest_ns
from pipeline.training.post_promotion_check import MIN_POINTS, VerdictCounts, compare_with_predecessor
from storage.history.reader import HistoryReader
from storage.model_store.jobs import JobState, TaskKind


def check_after_promotion(task: Task, report: ReportProgress, cancelled: IsCancelled) -> TaskResult:
    """Compare the champion (``task.challenger``) with its predecessor (``task.champion``).

    The result is ``better`` if the champion should be rolled back.
    """
    assert task.challenger is not None
    if task.stream.of_events and task.champion is None and task.stream.event_settings.model is None:
        reason = "the first model of the stream; there are no verdicts to compare with"
        return TaskResult(JobState.SUCCEEDED, reason, result={"version": task.challenger.version})
    started = time.process_time()
    table = _read_verdicts(task)
    rows = [_rows_of(table, version) for version in (task.challenger, task.champion)]
    column = "rarity" if all(map(_states_rarities, rows)) else "surprise"
    after, before = (_count_verdicts(some, column) for some in rows)
    verdict = compare_with_predecessor(before, after)
    result: dict[str, Any] = {
        "version": task.challenger.version,
        "before": before.as_dict(),
        "after": after.as_dict(),
    }
    cost = {"cpu_seconds": time.process_time() - started, "points": table.num_rows}
    evidence = {
        TaskKind.POST_PROMOTION_CHECK.value: {"reason": verdict.reason, "roll_back": verdict.roll_back}
    }
    return TaskResult(
        JobState.SUCCEEDED,
        verdict.reason,
        evidence=evidence,
        result=result,
        cost=cost,
        better=verdict.roll_back,
    )


def _read_verdicts(task: Task) -> pa.Table:
    """Read the newest history back to the point where it holds enough verdicts of both models.

    It reaches back as far as a training's data at most.
    """
    newest, most = newest_ns(task.history, task.name), task.stream.training_history.total_seconds()
    seconds = 2 * max(60.0, task.stream.retraining.post_promotion_check.total_seconds())
    columns = ["model", "surprise", "rarity", "flag", "microseconds"]
    assert task.challenger is not None
    while True:
        since_ns = newest - round(min(seconds, most) * 1e9)
        table = HistoryReader(task.history).read(task.name, since_ns=since_ns, columns=columns)
        points = min(_rows_of(table, version).num_rows for version in (task.challenger, task.champion))
        if seconds >= most or points >= 4 * MIN_POINTS:
            return table
        seconds *= 4


def _rows_of(table: pa.Table, version: VersionFiles | None) -> pa.Table:
    """Return the verdicts of ``version`` (None: the packaged model)."""
    model = (
        pc.cast(table.column("model"), pa.string())
        if "model" in table.column_names
        else pa.nulls(table.num_rows, pa.string())
    )
    own = pc.match_substring(model, "+" if version is None else f"+{version.version}")
    return table.filter(pc.fill_null(pc.invert(own) if version is None else own, False))


def _states_rarities(rows: pa.Table) -> bool:
    """Return whether enough verdicts state a rarity.

    The decision by surprise states none, and an earlier version of forewatch did not record it.
    """
    return "rarity" in rows.column_names and len(rows) - rows.column("rarity").null_count >= MIN_POINTS


def _count_verdicts(rows: pa.Table, column: str) -> VerdictCounts:
    """Count verdicts by the probability in ``column``.

    Under usual ranges the surprise only ranks rows; the rarity is the probability.
    """
    counted = VerdictCounts()
    if rows.num_rows:
        flag, series = (
            rows.column("flag").to_numpy(),
            rows.column("series").unify_dictionaries().combine_chunks().indices.to_numpy(),
        )
        decades = rows.column(column).to_numpy()
        counted.add(decades, flag, _seconds(rows), _alarms(flag.astype(np.bool_), series))
    return counted


def _seconds(rows: pa.Table) -> float:
    """Return the scoring time of the rows, from the median row; 0 if it is unknown.

    The median leaves out pauses of the process, which the model does not cause.
    """
    if "microseconds" not in rows.column_names:
        return 0.0
    middle = pc.approximate_median(rows.column("microseconds")).as_py()
    return (middle or 0.0) * rows.num_rows / 1e6


def _alarms(flag: NDArray[np.bool_], series: NDArray[np.int32]) -> int:
    """Count the flagged rows that follow an unflagged one of their series."""
    follows = np.r_[False, flag[:-1] & (series[1:] == series[:-1])]
    return int((flag & ~follows).sum())
