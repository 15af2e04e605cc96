"""Filled gaps of a data frame.

>>> from forewatch import fill_gaps
>>> whole = fill_gaps(frame, time="ts", values="temperature", series="sensor")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.core.errors import InputError
from pipeline.core.extras import require_training
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.dataframe import PARTITION, batches_of, build_scorer, make_table, to_pandas
from pipeline.services.gap_filling import FilledSeries, GapCollector


def fill_gaps(
    frame: Any,
    *,
    values: str | Sequence[str] | None = None,
    time: str | None = None,
    series: str | Sequence[str] | None = None,
    **stream: Any,
) -> Any:
    """Fill and smooth finished series from the values on both sides of each gap.

    A bidirectional network learns on the values of the frame. It looks ahead, so it is for finished data, and
    no detector uses what it fills in. Where gaps that are cut into the last fifth of a series are filled
    better by a straight line, or by the season at the level of the neighbours, that is taken.

    Args:
        frame: one row per point: a frame of pandas or polars, an Arrow table, or anything with an Arrow
            stream.
        values: numeric columns. Default: all numeric columns.
        time: column of the event time. Default: the index.
        series: column or columns that name the series. Default: one series.
        stream: further keys of a stream's config, such as ``every="1m"`` or ``calendar=``; without ``every``
            the interval of each series is learned.

    Returns:
        A frame of the same kind with a row for each row of ``frame`` that can be used, and for each one that
        a series misses, in the order of series and time: series, time, and

        - value: the value of the frame, or the filled one. It stays empty in gaps of more than 2,000
          rows, and before the first and after the last value of a series.
        - filled: whether it is filled.
        - smoothed: the estimate of each value from those on both sides, without itself.
        - lower, upper: the range of the estimate that holds nine of ten values.
        - method: network, line or season.

        With several value columns, one column each: ``value:column``.

    Raises:
        InputError: the frame or an option cannot be used.
        NotInstalled: the packages of ``forewatch[train]`` are missing.
    """
    require_training()
    rows, give_back = to_pandas(frame)
    table, fields, _ = make_table(rows, values, time, series)
    scorer = build_scorer({"format": {"csv": fields}, "detector": "light"} | stream)
    if scorer.events is not None:
        raise InputError("fill_gaps: events have no values; give value columns")
    filled = _filled(scorer, table)
    names = {"series": filled.series} if series is not None else {}
    found = {**names, "time": pd.to_datetime(filled.time, utc=True), **filled.columns()}
    return give_back(pd.DataFrame(found))


def _filled(scorer: StreamScorer, table: pa.Table) -> FilledSeries:
    """Score the rows of a table and fill their gaps."""
    collector = GapCollector(scorer)
    for records in batches_of(table):
        collector.append(scorer.process([records]))
    collector.append(scorer.flush({PARTITION: len(table)}))
    filled = collector.filled()
    if len(table) and not len(filled.time):
        raise InputError(
            f"fill_gaps: none of the {len(table)} rows can be used; give columns of numbers as values=, and "
            "a column of times as time="
        )
    return filled
