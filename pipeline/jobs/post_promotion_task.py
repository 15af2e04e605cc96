"""The guard's look at a new champion: its verdicts in the history beside those of the model that decided
before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.jobs.task_types import Outcome, Task, Tell, Version
from pipeline.training.dataset import newest_ns
from pipeline.training.post_promotion_check import ENOUGH, Window, judge
from storage.history.history import HistoryReader


def guard(task: Task, tell: Tell, cancelled: Callable[[], bool]) -> Outcome:
    """Whether the champion (``task.challenger``: the version to look at) misbehaves against its predecessor
    (``task.champion``).
    """
    assert task.challenger is not None
    started = time.process_time()
    table = _verdicts(task)
    after, before = (_window(table, version) for version in (task.challenger, task.champion))
    verdict = judge(before, after)
    result: dict[str, Any] = {
        "version": task.challenger.version,
        "before": before.as_dict(),
        "after": after.as_dict(),
    }
    cost = {"cpu_seconds": time.process_time() - started, "points": table.num_rows}
    evidence = {"guard": {"reason": verdict.reason, "roll_back": verdict.roll_back}}
    return Outcome(
        "succeeded", verdict.reason, evidence=evidence, result=result, cost=cost, better=verdict.roll_back
    )


def _verdicts(task: Task) -> pa.Table:
    """So much of the newest history that there is enough of both models, or all that trainings look at."""
    newest, most = newest_ns(task.history, task.name), task.stream.retraining.history.total_seconds()
    seconds = 2 * max(60.0, task.stream.retraining.post_promotion_check.total_seconds())
    columns = ["model", "surprise", "flag", "microseconds"]
    assert task.challenger is not None
    while True:
        since_ns = newest - round(min(seconds, most) * 1e9)
        table = HistoryReader(task.history).read(task.name, since_ns=since_ns, columns=columns)
        windows = [_window(table, version) for version in (task.challenger, task.champion)]
        if seconds >= most or min(window.points for window in windows) >= 4 * ENOUGH:
            return table
        seconds *= 4


def _window(table: pa.Table, version: Version | None) -> Window:
    """What the model of ``version`` (None: what comes with forewatch) said."""
    model = (
        pc.cast(table.column("model"), pa.string())
        if "model" in table.column_names
        else pa.nulls(table.num_rows, pa.string())
    )
    own = pc.match_substring(model, "+" if version is None else f"+{version.version}")
    mask = pc.fill_null(pc.invert(own) if version is None else own, False)
    rows = table.filter(mask)
    window = Window()
    if rows.num_rows:
        flag, series = (
            rows.column("flag").to_numpy(),
            rows.column("series").unify_dictionaries().combine_chunks().indices.to_numpy(),
        )
        window.add(
            rows.column("surprise").to_numpy(), flag, _seconds(rows), _alarms(flag.astype(np.bool_), series)
        )
    return window


def _seconds(rows: pa.Table) -> float:
    """What these rows took the engine that scored them, were each as dear as the middle one: a hiccup is not
    the model's. 0: not known.
    """
    if "microseconds" not in rows.column_names:
        return 0.0
    middle = pc.approximate_median(rows.column("microseconds")).as_py()
    return (middle or 0.0) * rows.num_rows / 1e6


def _alarms(flag: NDArray[np.bool_], series: NDArray[np.int32]) -> int:
    """Flagged rows that follow an unflagged one of their series."""
    follows = np.r_[False, flag[:-1] & (series[1:] == series[:-1])]
    return int((flag & ~follows).sum())
