"""Bytes and CPU time of recorded history, for the streams of ``alert_examples``.

    python -m benchmarks.history_bytes

The columns of the relation between channels are measured beside the others: as they are recorded, with all
their bits, and left out.
"""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
import pyarrow as pa

from benchmarks.fault_shapes import PER_DAY, Source, edge, market, plant
from detectors import build
from pipeline.core.types import Partition
from pipeline.engine.history_sink import HistorySink
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records
from storage.history import parquet

SEGMENT_ROWS, REPEATS = 20_000, 3


class Tables:
    """Holder of tables, in place of a writer."""

    def __init__(self) -> None:
        """Start without tables."""
        self.tables: list[pa.Table] = []

    def append(self, *batch: Any) -> None:
        """Keep the rows of a batch, its last argument."""
        if batch[-1].num_rows:
            self.tables.append(batch[-1])

    def hasten(self) -> None:
        """Do nothing: nothing is written."""


def recorded(source: Source) -> tuple[pa.Table, pa.Table, float]:
    """Return recorded rows, their relations with all bits, and CPU seconds."""
    stream = source.stream
    detector = build(detector_spec(stream))
    scorer = StreamScorer(provenance(source.name, stream, detector), stream, detector)
    tables, relations, used = Tables(), [], 0.0
    sink = HistorySink(cast(Any, tables), scorer, cast(Any, None))
    offset, waiting = 0, []
    for row, values in enumerate(source.records()):
        waiting += values
        if row % PER_DAY:
            continue
        n = len(waiting)
        offsets = np.arange(offset, offset + n)
        batch = Records(
            Partition(source.name, 0), offset, offset + n, offsets, np.full(n, -1), waiting, [None] * n
        )
        offset, waiting = offset + n, []
        started = time.process_time()
        result = scorer.process([batch])
        used += time.process_time() - started
        if result.scored is not None:
            relations.append(result.scored.verdicts.relation)
        sink.append(result)
    whole = np.concatenate(relations)
    names = [f"relation:{name}" for name in scorer.provenance.channels[: whole.shape[1]]]
    exact = pa.table({name: parquet.column(whole[:, c]) for c, name in enumerate(names)})
    return parquet.joined(tables.tables), exact, used


def encoded(table: pa.Table) -> tuple[float, float]:
    """Return bytes and CPU microseconds of a row in segments."""
    best = np.inf
    for _ in range(REPEATS):
        started = time.process_time()
        size = sum(
            len(parquet.encode(table.slice(at, SEGMENT_ROWS)))
            for at in range(0, table.num_rows, SEGMENT_ROWS)
        )
        best = min(best, time.process_time() - started)
    return size / table.num_rows, 1e6 * best / table.num_rows


def main() -> None:
    """Print the figures."""
    for source in (plant(), edge(), market()):
        table, exact, used = recorded(source)
        plain = table.drop_columns([name for name in table.column_names if name.startswith("relation:")])
        whole = plain
        for name in exact.column_names:
            whole = whole.append_column(name, exact.column(name))
        (without, cpu), (with_relation, cpu_with), (all_bits, _) = map(encoded, (plain, table, whole))
        print(
            f"{source.name}: {table.num_rows} rows; bytes a row {without:.1f} without relations, "
            f"{with_relation:.1f} with, {all_bits:.1f} with all bits; CPU us a row: scoring "
            f"{1e6 * used / table.num_rows:.1f}, encoding {cpu:.2f} without, {cpu_with:.2f} with"
        )


if __name__ == "__main__":
    main()
