"""The detector on a pandas frame, on the same code path as the daemon.

>>> from forewatch import detect
>>> verdicts = detect(frame, time="ts", values=["temperature"], series="sensor")
>>> frame[verdicts["flag"]]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.types import infer_dtype
from pydantic import ValidationError

from detectors import build
from detectors.base import CAUSES, FORECASTERS
from pipeline.config.schema import Stream
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.types import Partition
from pipeline.core.verdict_words import former_cause, former_forecaster
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.anomaly_columns import AnomalyColumns
from pipeline.services.frame_times import frame_times
from pipeline.services.scores_file import column_of
from pipeline.sources.base import TableRecords

PARTITION = Partition("frame", 0)
_BATCH_ROWS = 200_000
#: A frame of pandas or polars, an Arrow table, or anything with an Arrow stream.
Frame = TypeVar("Frame")
#: Rows of a series until it has usual ranges: three blocks of 48.
ROWS_UNTIL_RANGES = 150
_ONE_SERIES = "__series__"
_BAND = ("expected", "lower", "upper")


def detect(
    frame: Frame,
    *,
    values: str | Sequence[str] | None = None,
    time: str | None = None,
    series: str | Sequence[str] | None = None,
    detector: str = "standard",
    preset: str = "sensor",
    **stream: Any,
) -> Frame:
    """Score every row of ``frame`` in one causal pass in the order of event time.

    The rows of ``frame`` can be in any order. The score of a row uses this row and earlier rows of its
    series.

    Args:
        frame: one row per point: a frame of pandas or polars, an Arrow table, or anything with an Arrow
            stream.
        values: numeric columns, one channel each. Default: all numeric columns.
        time: column of the event time. Default: the index.
        series: column or columns that name the series. Default: one series.
        detector: light, standard, strong, or the name of a registered detector.
        preset: sensor, network or stock.
        stream: further keys of a stream's config, such as ``every="1m"`` or ``direction="up"``.

    Returns:
        A frame of the same kind, with the index of ``frame`` and these columns:

        - score: 1 − p-value.
        - surprise: surprisal, −log10 of the p-value.
        - rarity: −log10 of the probability on the past of the series, with ``decision="usual_range"`` (else
          0). The surprise ranks rows; the rarity is calibrated, and never rarer than one in the rows seen.
        - flag: the row is an alarm.
        - forecaster: the forecaster of ``expected``.
        - cause: what contributed most to the surprise.
        - expected, lower, upper: the forecast and its band. With several channels, one column each per
          channel: ``expected:channel``.
        - contribution:channel: share of the channel in the surprise, with several channels only.
        - guard, lead: deprecated, the forecaster and the cause in the words of forewatch 0.1.0.

        Rows that cannot be used (duplicate, not decodable) have no score and no flag.

        With ``decision="usual_range"``, the default, there are more columns, which are equal on all rows from
        the first to the last flagged row of an anomaly, and empty on other rows:

        - anomaly: id of the anomaly.
        - severity, direction: those of the anomaly.
        - statement: its quantity and its usual range as text.
        - observed:channel: the quantity for the leading channel, the value at the peak for another one.

        On the rows of an anomaly, expected, lower, upper and contribution are those of the anomaly, too: the
        usual range for the leading channel. So ``observed`` of the leading channel lies outside ``lower`` and
        ``upper``. The row of the peak has the largest surprise of these rows.

    Warns:
        UserWarning: some series are too short to have usual ranges; the message names them.

    Raises:
        InputError: the frame or an option cannot be used.
    """
    rows, give_back = to_pandas(frame)
    return give_back(
        score_frame(rows, (values, time, series), {"detector": detector, "preset": preset} | stream)
    )


def score_frame(
    frame: pd.DataFrame,
    columns: tuple[str | Sequence[str] | None, str | None, str | Sequence[str] | None],
    keys: dict[str, Any],
    weights: Mapping[str, NDArray[Any]] | None = None,
    prepare: Callable[[StreamScorer], object] | None = None,
) -> pd.DataFrame:
    """Score a frame of pandas as ``detect`` does.

    Args:
        frame: One row per point.
        columns: Columns of the values, the time and the series.
        keys: Keys of a stream's config.
        weights: Weights of a version; None for the packaged ones.
        prepare: Called with the scorer before the first row, to give series a state of before. Its caller
            states which series are too short.
    """
    table, fields, order = make_table(frame, *columns)
    scorer = build_scorer({"format": {"csv": fields}} | keys, weights)
    if prepare is not None:
        prepare(scorer)
    config = scorer.stream
    found = _empty(len(frame), config.channels)
    anomalies = AnomalyColumns(len(table))
    unusable = 0
    for records in batches_of(table):
        result = scorer.process([records])
        _fill(found, result, config.channels, order)
        anomalies.add(result)
        unusable += len(dead := result.outcomes[PARTITION].dead)
        if unusable == len(table):
            raise InputError(f"detect: no row can be used; {dead[-1].reason}: {dead[-1].detail}")
    result = scorer.flush({PARTITION: len(table)})
    _fill(found, result, config.channels, order)
    anomalies.add(result)
    if scorer.provenance.decision == "usual_range":
        anomalies.fill(found, scorer, order)
        if prepare is None:
            _warn_of_short_series(anomalies.without_ranges(scorer), len(scorer.names()))
    _write_words(found)
    return pd.DataFrame(found, index=frame.index)


def batches_of(table: pa.Table) -> Iterator[TableRecords]:
    """Yield the rows of a table as records without times of their own."""
    for start in range(0, len(table), _BATCH_ROWS):
        part = table.slice(start, _BATCH_ROWS)
        offsets = np.arange(start, start + len(part), dtype=np.int64)
        unstamped = np.full(len(part), -1, np.int64)
        yield TableRecords(PARTITION, start, start + len(part), offsets, unstamped, part)


def to_pandas(frame: Any, caller: str = "detect") -> tuple[pd.DataFrame, Callable[[pd.DataFrame], Any]]:
    """Return a frame of pandas, and the function that converts results back.

    ``caller`` is the function that errors name.

    Raises:
        InputError: ``frame`` is no frame and no table.
    """
    if isinstance(frame, pd.DataFrame):
        return frame, lambda found: found
    if not hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "to_frame"):
        hint = "; call collect() first" if hasattr(frame, "collect") else ""
        hint = "; call to_frame() first" if hasattr(frame, "to_frame") else hint
        raise InputError(
            f"{caller}: {type(frame).__name__} is no frame of pandas or polars and no Arrow table{hint}"
        )
    rows = pa.table(frame).to_pandas()

    def give_back(found: pd.DataFrame) -> Any:
        table = pa.Table.from_pandas(found, preserve_index=False)
        if type(frame).__module__.partition(".")[0] != "polars":
            return table
        import polars

        return polars.from_arrow(table)

    return rows, give_back


def _warn_of_short_series(short: Mapping[str, int], series: int) -> None:
    """Warn of series without usual ranges, given their numbers of rows."""
    if not short:
        return
    shown = ", ".join(f"{name} ({rows:,} rows)" for name, rows in list(short.items())[:5])
    more = ", …" if len(short) > 5 else ""
    warnings.warn(
        f"detect: {len(short)} of {series} series are too short to have usual ranges, so only static limits "
        f"raise alarms in them: {shown}{more}. A series needs about {ROWS_UNTIL_RANGES} rows. Put earlier "
        "rows of the series into the frame, give limits=, or use decision='surprise'",
        UserWarning,
        stacklevel=4,
    )


def build_scorer(keys: dict[str, Any], weights: Mapping[str, NDArray[Any]] | None = None) -> StreamScorer:
    """Return the scorer of a stream with these keys, and the weights of a version.

    Raises:
        InputError: a key is refused.
    """
    try:
        config = Stream.model_validate({"source": {"memory": {}}, "future": None} | keys)
        made = build(detector_spec(config), weights)
        return StreamScorer(provenance("frame", config, made), config, made)
    except ValidationError as error:
        said = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"detect: {'; '.join(said)}") from None
    except (ConfigError, ValueError) as error:
        raise InputError(f"detect: {error}") from None


def _write_words(found: dict[str, Any]) -> None:
    """Replace the numbers of forecasters and causes by their words."""
    forecaster, cause = (found[name].astype(np.int8) for name in ("forecaster", "cause"))
    found["forecaster"], found["cause"] = _words(forecaster, FORECASTERS), _words(cause, CAUSES)
    found["guard"] = _words(forecaster, [former_forecaster(word) for word in FORECASTERS])
    found["lead"] = _words(cause, [former_cause(word) for word in CAUSES])


def _words(codes: NDArray[np.int8], words: Sequence[str]) -> pd.Categorical[str]:
    return pd.Categorical.from_codes(codes, categories=pd.Index(words))


def make_table(
    frame: pd.DataFrame,
    values: str | Sequence[str] | None,
    time: str | None,
    series: str | Sequence[str] | None,
) -> tuple[pa.Table, dict[str, Any], NDArray[np.intp]]:
    """Return the table sorted by time, its format, and the frame's rows.

    Args:
        frame: The frame.
        values: Columns of the values, None for all numbers.
        time: Column of the time, None for the index.
        series: Columns that name the series.
    """
    names = [series] if isinstance(series, str) else list(series or ())
    if values is None:
        numbers = {*frame.select_dtypes("number").columns, *_decimals(frame)}
        values = [c for c in frame.columns if c in numbers and c != time and c not in names]
    channels = [values] if isinstance(values, str | int) else list(values)
    _check_names(frame, [*channels, *names])
    if missing := [c for c in [*channels, *names, *([time] if time else [])] if c not in frame.columns]:
        raise InputError(
            f"detect: the frame has no column {', '.join(missing)}; it has "
            f"{', '.join(map(str, frame.columns))}"
        )
    if not channels:
        raise InputError("detect: the frame has no numeric column; name the value columns with values=")
    if time is None and not isinstance(frame.index, pd.DatetimeIndex):
        raise InputError(
            "detect: the index is not a DatetimeIndex; name the column of the event time with time="
        )
    used = frame[list(dict.fromkeys([*channels, *names]))].copy(deep=False)
    given = frame.index if time is None else frame[time]
    used["__time__"] = frame_times(given, "detect", time)
    order = np.argsort(used["__time__"].to_numpy("datetime64[ns]"), kind="stable")
    if not names:
        used[_ONE_SERIES] = "frame"
    fields = {"series": names or _ONE_SERIES, "time": "__time__", "values": channels}
    try:
        return pa.Table.from_pandas(used.iloc[order], preserve_index=False), fields, order
    except pa.ArrowException as error:
        reason = "; ".join(map(str, error.args))
        raise InputError(f"detect: a column holds what is neither number, text nor time: {reason}") from None


def _decimals(frame: pd.DataFrame) -> list[str]:
    """Return the columns of objects that are all of the type Decimal."""
    objects = frame.select_dtypes(object).items()
    return [str(name) for name, column in objects if infer_dtype(column, skipna=True) == "decimal"]


def _check_names(frame: pd.DataFrame, used: Sequence[Any]) -> None:
    """Refuse columns that cannot be named. Raises InputError."""
    if other := [name for name in used if not isinstance(name, str)]:
        raise InputError(
            f"detect: the name of a column is {other[0]!r}; names are texts: frame.columns = "
            "[str(name) for name in frame.columns]"
        )
    if twice := sorted(set(frame.columns[frame.columns.duplicated()]) & set(used)):
        raise InputError(f"detect: several columns are called {twice[0]}; give each a name of its own")


def _empty(rows: int, channels: Sequence[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: np.full(rows, np.nan, np.float32) for name in ("score", "surprise", "rarity")
    }
    columns |= {
        "flag": np.zeros(rows, bool),
        "forecaster": np.zeros(rows, np.uint8),
        "cause": np.zeros(rows, np.uint8),
    }
    return columns | {
        column_of(name, c, channels): np.full(rows, np.nan, np.float32)
        for name in _parts(channels)
        for c in channels
    }


def _fill(
    found: dict[str, Any], result: BatchResult, channels: Sequence[str], order: NDArray[np.intp]
) -> None:
    if result.scored is None:
        return
    real = result.scored.offset >= 0  # points filled in by a gap policy have no row
    rows, verdicts = order[result.scored.offset[real]], result.scored.verdicts
    for name in ("score", "surprise", "rarity", "flag", "forecaster", "cause"):
        found[name][rows] = getattr(verdicts, name)[real]
    for name in _parts(channels):
        for i, channel in enumerate(channels):
            found[column_of(name, channel, channels)][rows] = getattr(verdicts, name)[real, i]


def _parts(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the quantities with a column per channel."""
    return _BAND if len(channels) == 1 else (*_BAND, "contribution")
