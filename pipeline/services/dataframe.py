"""The detector on a pandas frame, by the very path that the daemon takes.

>>> from forewatch import detect
>>> verdicts = detect(frame, time="ts", values=["temperature"], series="sensor")
>>> frame[verdicts["flag"]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from detectors import build
from detectors.base import CAUSES, FORECASTERS
from pipeline.config.schema import Stream
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.types import Partition
from pipeline.core.verdict_words import former_cause, former_forecaster
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import BatchResult, StreamScorer
from pipeline.sources.base import TableRecords

PARTITION = Partition("frame", 0)
_BATCH = 200_000
_ONE_SERIES = "__series__"
_BAND = ("expected", "lower", "upper")


def detect(
    frame: pd.DataFrame,
    *,
    values: str | Sequence[str] | None = None,
    time: str | None = None,
    series: str | Sequence[str] | None = None,
    detector: str = "standard",
    preset: str = "sensor",
    **stream: Any,
) -> pd.DataFrame:
    """Score every row of ``frame`` in one causal pass in the order of event time, however the frame is
    sorted; a row's score uses that row and earlier ones of its series only.

    ``values`` are the numeric columns, one channel each (left out: all numeric ones), ``time`` the column of
    the event time (left out: the index), ``series`` the column or columns that name the series (left out: one
    series). Further keywords are keys of a stream's config, such as ``every="1m"`` or ``direction="up"``.

    Returns a frame with the same index: score, surprise (surprisal: −log10 of the p-value), flag, forecaster
    (whose forecast it was), cause (of the verdict), and expected, lower and upper. With several channels,
    these three have ``:channel`` appended, and contribution:channel is the share of each channel in the
    surprise. Rows that could not be used (duplicate, not decodable) have a missing score and no flag. The
    columns guard and lead are deprecated: forecaster and cause with the words of forewatch 0.1.0.

    Raises InputError for a frame or an option that cannot be used.
    """
    table, fields, order = _table(frame, values, time, series)
    try:
        config = Stream.model_validate(
            {
                "source": {"memory": {}},
                "format": {"csv": fields},
                "detector": detector,
                "preset": preset,
                "future": None,
            }
            | stream
        )
        scoring = StreamScorer(
            provenance("frame", config, made := build(detector_spec(config))), config, made
        )
    except ValidationError as error:
        said = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"detect: {'; '.join(said)}") from None
    except (ConfigError, ValueError) as error:
        raise InputError(f"detect: {error}") from None
    found = _empty(len(frame), config.channels)
    unusable = 0
    for start in range(0, len(table), _BATCH):
        offsets = np.arange(start, min(start + _BATCH, len(table)), dtype=np.int64)
        unstamped = np.full(len(offsets), -1, np.int64)
        records = TableRecords(
            PARTITION, start, start + len(offsets), offsets, unstamped, table.slice(start, len(offsets))
        )
        result = scoring.process([records])
        _fill(found, result, config.channels, order)
        unusable += len(dead := result.outcomes[PARTITION].dead)
        if unusable == len(table):
            raise InputError(f"detect: not one row can be used; {dead[-1].reason}: {dead[-1].detail}")
    _fill(found, scoring.flush({PARTITION: len(table)}), config.channels, order)
    forecaster, cause = (found[name].astype(np.int8) for name in ("forecaster", "cause"))
    found["forecaster"], found["cause"] = _words(forecaster, FORECASTERS), _words(cause, CAUSES)
    found["guard"] = _words(forecaster, [former_forecaster(word) for word in FORECASTERS])
    found["lead"] = _words(cause, [former_cause(word) for word in CAUSES])
    return pd.DataFrame(found, index=frame.index)


def _words(codes: NDArray[np.int8], words: Sequence[str]) -> pd.Categorical[str]:
    return pd.Categorical.from_codes(codes, categories=pd.Index(words))


def _table(
    frame: pd.DataFrame,
    values: str | Sequence[str] | None,
    time: str | None,
    series: str | Sequence[str] | None,
) -> tuple[pa.Table, dict[str, Any], NDArray[np.intp]]:
    """The frame as Arrow in the order of time, the format that says what its columns are, and which row of
    the frame each one is.
    """
    names = [series] if isinstance(series, str) else list(series or ())
    if values is None:
        values = [c for c in frame.select_dtypes("number").columns if c != time and c not in names]
    channels = [values] if isinstance(values, str) else list(values)
    if missing := [c for c in [*channels, *names, *([time] if time else [])] if c not in frame.columns]:
        raise InputError(
            f"detect: the frame has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}"
        )
    if not channels:
        raise InputError("detect: the frame has no numeric column; name the columns to watch with values=")
    if time is None and not isinstance(frame.index, pd.DatetimeIndex):
        raise InputError(
            "detect: the index is not a DatetimeIndex; name the column of the event time with time="
        )
    used = frame[list(dict.fromkeys([*channels, *names]))].copy(deep=False)
    try:
        used["__time__"] = pd.to_datetime(frame.index if time is None else frame[time], utc=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"detect: column {time} is no time: {error}") from None
    order = np.argsort(used["__time__"].to_numpy("datetime64[ns]"), kind="stable")
    if not names:
        used[_ONE_SERIES] = "frame"
    fields = {"series": names or _ONE_SERIES, "time": "__time__", "values": channels}
    return pa.Table.from_pandas(used.iloc[order], preserve_index=False), fields, order


def _empty(rows: int, channels: Sequence[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {name: np.full(rows, np.nan, np.float32) for name in ("score", "surprise")}
    columns |= {
        "flag": np.zeros(rows, bool),
        "forecaster": np.zeros(rows, np.uint8),
        "cause": np.zeros(rows, np.uint8),
    }
    return columns | {
        _column(name, c, channels): np.full(rows, np.nan, np.float32)
        for name in _parts(channels)
        for c in channels
    }


def _fill(
    found: dict[str, Any], result: BatchResult, channels: Sequence[str], order: NDArray[np.intp]
) -> None:
    if result.scored is None:
        return
    real = result.scored.offset >= 0  # points that a gap policy filled in have no row
    rows, verdicts = order[result.scored.offset[real]], result.scored.verdicts
    for name in ("score", "surprise", "flag", "forecaster", "cause"):
        found[name][rows] = getattr(verdicts, name)[real]
    for name in _parts(channels):
        for i, channel in enumerate(channels):
            found[_column(name, channel, channels)][rows] = getattr(verdicts, name)[real, i]


def _parts(channels: Sequence[str]) -> tuple[str, ...]:
    """What each channel has a column of; the share of an only channel is always all of it."""
    return _BAND if len(channels) == 1 else (*_BAND, "contribution")


def _column(name: str, channel: str, channels: Sequence[str]) -> str:
    return name if len(channels) == 1 else f"{name}:{channel}"
