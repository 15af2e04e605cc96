"""Anomalies of a frame, on the path of the daemon."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.types import Anomaly
from pipeline.services import dataframe
from pipeline.sources.base import TableRecords


def anomalies_of(frame: pd.DataFrame, **keys: Any) -> list[Anomaly]:
    """Return the last state of each anomaly of ``frame``, a series with times as its index."""
    table, fields, _ = dataframe.make_table(frame, None, None, None)
    scorer = dataframe.build_scorer({"format": {"csv": fields}} | keys)
    rows = len(table)
    records = TableRecords(dataframe.PARTITION, 0, rows, np.arange(rows), np.full(rows, -1, np.int64), table)
    changed = scorer.process([records]).anomalies + scorer.flush({dataframe.PARTITION: rows}).anomalies
    return list({one.id: one for one in changed}.values())
