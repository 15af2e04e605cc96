"""The post-promotion check reads the probability by which the stream decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.types import Partition
from pipeline.jobs.post_promotion_task import check_after_promotion
from pipeline.jobs.task_types import Task, VersionFiles
from storage.history import parquet
from storage.history.writer import HistoryWriter
from tests.support.trainings import BEGIN, MINUTE, config_of

ROWS = 10_000
AFTER = "aa" * 6
Decades = np.ndarray


def decades(seed: int, factor: float = 1.0) -> Decades:
    """Return −log10 of random probabilities, calibrated if ``factor`` is 1."""
    return (factor * -np.log10(np.random.default_rng(seed).random(ROWS))).astype(np.float32)


def check(folder: Path, before: dict[str, Decades], after: dict[str, Decades]) -> tuple[bool, str]:
    """Return decision and reason of the check on a history of two versions."""
    config = config_of(f"sqlite:///{folder}/a.db", folder)
    writer = HistoryWriter(config.history_path, "plant")
    partition, slot = Partition("plant", 0), np.zeros(ROWS, np.int32)
    writer.open(partition, "log", 1, 0)
    for part, (model, columns) in enumerate((("m", before), (f"m+{AFTER}", after))):
        offset = np.arange(ROWS, dtype=np.int64) + part * ROWS
        quiet = {"flag": np.zeros(ROWS, bool), "microseconds": np.full(ROWS, 5, np.float32)}
        table = parquet.rows(
            offset, BEGIN + offset * MINUTE, slot, pa.array(["b1"]), [], quiet | columns, {}
        ).append_column("model", parquet.constant(model, ROWS))
        writer.append(partition, int(offset[0]), int(offset[-1]) + 1, table)
    assert writer.barrier(partition, 2 * ROWS)
    writer.close()
    stream = config.streams["plant"]
    challenger = VersionFiles(AFTER, "", "")
    task = Task(1, 1, "guard", "plant", stream, config.history_path, "", None, challenger, (), {})
    result = check_after_promotion(task, lambda progress: None, lambda: False)
    assert result.result["before"]["points"] == result.result["after"]["points"] == ROWS
    return result.better, result.reason


@pytest.mark.parametrize("off", ["surprise", "rarity"])
def test_the_rarity_counts_where_it_is_stated_and_not_the_rank(tmp_path: Path, off: str) -> None:
    """Only ``off`` is three times too large after the promotion."""
    before = {"surprise": decades(1), "rarity": decades(2)}
    after = {"surprise": decades(3), "rarity": decades(4)} | {off: decades(5, 3.0)}
    roll_back, reason = check(tmp_path, before, after)
    assert roll_back == (off == "rarity"), reason
    assert ("not calibrated" in reason) == roll_back


def test_history_of_an_earlier_version_without_rarities_is_compared_by_surprise(tmp_path: Path) -> None:
    roll_back, reason = check(
        tmp_path, {"surprise": decades(1)}, {"surprise": decades(3, 3.0), "rarity": decades(4)}
    )
    assert roll_back
    assert "not calibrated" in reason
