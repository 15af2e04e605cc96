"""Writes every point with its verdict into the recorded history, one table per batch and partition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.types import Partition, Position
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from storage.history import parquet
from storage.history.writer import HistoryStats, HistoryWriter


class HistorySink:
    """Sink that turns results into rows for the ``HistoryWriter`` of a stream."""

    def __init__(self, writer: HistoryWriter, scorer: StreamScorer, metrics: StreamMetrics) -> None:
        self._writer = writer
        self._scorer = scorer
        self._metrics = metrics
        self._reported = HistoryStats()
        self._names = pa.nulls(0, pa.string())
        self._named = -1  # the generation of the series table that ``_names`` belongs to

    def open(self, position: Position, offset: int) -> None:
        """Start appending a newly owned partition at ``offset``."""
        self._writer.open(position.partition, position.identity, position.epoch, offset)

    def append(self, result: BatchResult) -> None:
        """Append the points of one batch, committed or replayed."""
        if result.scored is None:
            tables = {}
        else:
            whole = self._table(result)
            tables = {
                partition: whole.slice(rows.start, rows.stop - rows.start)
                for partition, rows in result.rows.items()
            }
        for partition, outcome in result.outcomes.items():
            self._writer.append(
                partition, outcome.first_offset, outcome.next_offset, tables.get(partition, parquet.empty())
            )
        if any(one.revision == 1 for one in result.anomalies):
            self._writer.hasten()  # a page of another process shows the chart of a new anomaly

    def begin_writing(self, partition: Partition) -> Callable[[], bool]:
        """Begin to write what is appended; return a function that tells if it is."""
        return self._writer.begin_writing(partition)

    def durable(self, partition: Partition, offset: int) -> None:
        """Wait until everything below ``offset`` is on disk; the writer reports a failing disk."""
        self._writer.barrier(partition, offset)

    def settle(self, partition: Partition, offset: int) -> None:
        """Note that a snapshot at ``offset`` is committed, and update the metrics."""
        self._writer.settle(partition, offset)
        now, before = self._writer.stats, self._reported
        self._metrics.history(
            now.segments - before.segments, now.bytes - before.bytes, now.errors - before.errors
        )
        self._reported = replace(now)

    def drop(self, partition: Partition) -> None:
        self._writer.drop(partition)

    def close(self) -> None:
        self._writer.close()

    def _table(self, result: BatchResult) -> pa.Table:
        assert result.scored is not None
        scored, points, verdicts = result.scored, result.scored.points, result.scored.verdicts
        per_point: dict[str, NDArray[Any]] = {
            "score": verdicts.score,
            "surprise": verdicts.surprise,
            "flag": verdicts.flag,
            "guard": verdicts.forecaster,
            # CPU time per point of the batch
            "microseconds": np.full(len(points), 1e6 * result.seconds / len(points), np.float32),
        }
        if self._scorer.provenance.decision == "usual_range":
            per_point["rarity"] = verdicts.rarity
        # The other inputs of the detector, so that a verdict can be computed again.
        per_point |= {"every": points.every, "missed": points.missed}
        per_channel: dict[str, NDArray[Any]] = {
            "value": points.values,
            "expected": verdicts.expected,
            "lower": verdicts.lower,
            "upper": verdicts.upper,
        }
        if verdicts.relation.shape[1]:
            per_channel["relation"] = parquet.coarse(verdicts.relation)
        channels = self._scorer.provenance.channels
        table = parquet.rows(
            scored.offset, points.time, points.slot, self._series_names(), channels, per_point, per_channel
        )
        return table.append_column("model", parquet.constant(result.model_version, len(points)))

    def _series_names(self) -> pa.Array:
        """Return the names by slot, made again only after series came or went."""
        table = self._scorer.series
        if self._named != table.generation:
            self._named = table.generation
            self._names = parquet.texts(self._scorer.names())
        return self._names
