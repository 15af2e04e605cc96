"""Verdicts on a file, and the config that gives them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.yaml_text import yaml_of
from pipeline.core.errors import InputError
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.dataframe import ROWS_UNTIL_RANGES, score_frame
from storage.history.parquet import UNBOUNDED

MAX_FILE_BYTES = 20 << 20
MAX_ROWS = 20_000
MAX_CHANNELS = 6
MAX_SHOWN_POINTS = 4_000
MAX_NAMES = 200
_KEYS_OF_A_FILE = {"detector": "light"}
_NO_NUMBERS = (
    "no column of the file holds numbers, and this page judges numbers. Events (codes, log lines) are judged "
    "by their order, which a model must learn first: in Python `forewatch.fit_events(frame, event=COLUMN)`, "
    "in the daemon a stream whose format has `code` or `text`"
)
_SENSITIVITIES = ("low", "normal", "high")
_DIRECTIONS = ("both", "up", "down")
_PRESETS = ("sensor", "network", "stock")
#: Word of the page for ``holidays: null``, also where a stream has some.
NO_HOLIDAYS = "none"
_TIME_NAMES = ("time", "timestamp", "ts", "date", "datetime", "t")


def try_file(data: bytes, query: dict[str, str]) -> dict[str, Any]:
    """Return the verdicts on a file, and the config of a stream that gives the same.

    Args:
        data: Bytes of a CSV or Parquet file.
        query: Settings of the page.

    Raises:
        InputError: the file or a setting cannot be used.
    """
    return tried(_frame(data), query)


def tried(
    frame: pd.DataFrame,
    query: dict[str, str],
    keys: Mapping[str, Any] = _KEYS_OF_A_FILE,
    judged: Sequence[str] = (),
    prepare: Callable[[StreamScorer], bool] = lambda scorer: False,
) -> dict[str, Any]:
    """Return the verdicts on a frame, and the config that gives the same.

    Args:
        frame: One row per point.
        query: Settings of the page.
        keys: Further keys of a stream's config.
        judged: Columns that are judged together; none for the one that the query shows.
        prepare: Gives series a state of before their first row; returns whether it did.

    Raises:
        InputError: a setting cannot be used.
    """
    rows = len(frame)
    time, series = _time_and_series(frame, query)
    numeric = [c for c in frame.select_dtypes("number").columns if c not in (time, series)]
    channels = _channels(query, numeric)
    frame = frame.tail(MAX_ROWS).reset_index(drop=True)
    settings, preset = _settings(query), _one_of(query, "preset", _PRESETS)
    columns = list(judged) or channels[:MAX_CHANNELS]
    prepared = []
    found = score_frame(
        frame,
        (columns, time, series or None),
        {**keys, **settings, "preset": preset},
        prepare=lambda scorer: prepared.append(prepare(scorer)),
    )
    names = frame[series].astype(str) if series else pd.Series("frame", index=frame.index)
    of_series = _of_series(found["flag"], names, query.get("show"))
    return {
        **_used_columns(frame, rows, numeric),
        "time": time,
        "series": series,
        "values": channels,
        **of_series,
        "flagged": int(found["flag"].sum()),
        "settings": {name: NO_HOLIDAYS if value is None else str(value) for name, value in settings.items()},
        "preset": preset,
        "detector": keys["detector"],
        "judged": columns,
        "notes": _notes(names, any(prepared)),
        **_points(frame, found, time, names == of_series["shown"], (channels[0], columns)),
        "yaml": _yaml(query, time, series, channels),
    }


def _used_columns(frame: pd.DataFrame, rows: int, numeric: Sequence[object]) -> dict[str, Any]:
    """Return the number of all rows and of the used ones, and the columns."""
    columns = {"columns": [str(c) for c in frame.columns], "numeric": [str(c) for c in numeric]}
    return {"rows": rows, "used": len(frame), **columns}


def _notes(names: pd.Series, continued: bool) -> list[str]:
    """Return what a reader must know about the verdicts, in sentences."""
    if continued:
        return ["Each series begins with what it has learned from the files of warm_start."]
    counts = names.value_counts()
    short = int((counts < ROWS_UNTIL_RANGES).sum())
    notes = [
        "Judged from the first row on: ranges that a stream has learned from earlier points are learned here "
        "anew. A time of day is known after some days."
    ]
    if short:
        which = "The series has" if len(counts) == 1 else f"{short:,} of {len(counts):,} series have"
        notes.append(
            f"{which} fewer than {ROWS_UNTIL_RANGES} rows: nothing is usual for them yet, so only limits "
            "raise alarms. Take a longer file, or wait for more points."
        )
    return notes


def _time_and_series(frame: pd.DataFrame, query: Mapping[str, str]) -> tuple[str, str]:
    """Return the columns of the time and of the series, which may be empty."""
    time = query.get("time") or _guess_time(frame)
    if time not in frame.columns:
        raise InputError(f"the file has no column {time}; it has {', '.join(map(str, frame.columns))}")
    texts = [c for c in frame.columns if c != time and not pd.api.types.is_numeric_dtype(frame[c])]
    few = max(1, len(frame) // 20)
    series = query.get("series") or next((c for c in texts if frame[c].nunique() <= few), "")
    if series and series not in frame.columns:
        raise InputError(f"the file has no column {series}")
    return time, series


def _of_series(flags: pd.Series, names: pd.Series, wanted: str | None) -> dict[str, Any]:
    """Return the series, those with most flagged rows first, and the shown one."""
    flagged = flags.groupby(names).sum().sort_values(ascending=False, kind="stable")
    shown = wanted if wanted in flagged.index else str(flagged.index[0])
    listed = dict.fromkeys([*flagged.index[:MAX_NAMES], shown])
    return {
        "names": list(listed),
        "flagged_of": [int(flagged[name]) for name in listed],
        "shown": shown,
    }


def _channels(query: dict[str, str], numeric: list[str]) -> list[str]:
    """Return the chosen columns, or the first one with numbers."""
    found = [c for c in query.get("values", "").split("\x1f") if c] or numeric[:1]
    if not found:
        raise InputError(_NO_NUMBERS)
    return found


def _frame(data: bytes) -> pd.DataFrame:
    if not data:
        raise InputError("the file is empty")
    try:
        frame = pd.read_parquet(io.BytesIO(data)) if data[:4] == b"PAR1" else pd.read_csv(io.BytesIO(data))
    except Exception as error:  # the readers raise many kinds
        raise InputError(f"the file is neither CSV with a header nor Parquet: {error}") from None
    if frame.empty:
        raise InputError("the file has no rows")
    frame.columns = [str(c) for c in frame.columns]
    return frame


def _guess_time(frame: pd.DataFrame) -> str:
    """Return the column that is most likely the event time."""
    by_name = {c.casefold(): c for c in frame.columns}
    named = next((by_name[name] for name in _TIME_NAMES if name in by_name), None)
    if named is not None:
        return named
    for column in frame.columns:
        if pd.api.types.is_datetime64_any_dtype(frame[column]):
            return str(column)
        if not pd.api.types.is_numeric_dtype(frame[column]):
            parsed = pd.to_datetime(frame[column].head(20), errors="coerce", utc=True, format="mixed")
            if parsed.notna().all():
                return str(column)
    raise InputError("no column looks like a time; name one of them `time`, or choose it")


def _one_of(query: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    word = query.get(name) or words[1 if name == "sensitivity" else 0]
    if word not in words:
        raise InputError(f"{name}={word}: write one of {', '.join(words)}")
    return word


def _settings(query: Mapping[str, str]) -> dict[str, Any]:
    try:
        deviation, points = float(query.get("min_deviation") or 0), int(query.get("min_points") or 1)
    except ValueError:
        raise InputError("min_deviation and min_points are numbers") from None
    if not math.isfinite(deviation):
        raise InputError("min_deviation is a number")
    holidays = query.get("holidays") or NO_HOLIDAYS
    return {
        "sensitivity": _one_of(query, "sensitivity", _SENSITIVITIES),
        "direction": _one_of(query, "direction", _DIRECTIONS),
        "min_deviation": deviation,
        "min_points": points,
        "timezone": query.get("timezone") or "UTC",
        "holidays": None if holidays == NO_HOLIDAYS else holidays,
    }


def _points(
    frame: pd.DataFrame, found: pd.DataFrame, time: str, here: pd.Series, columns: tuple[str, list[str]]
) -> dict[str, Any]:
    """Return the newest points of the rows ``here``, of the shown column."""
    channel, judged = columns
    at = pd.to_datetime(frame.loc[here, time], utc=True).to_numpy("datetime64[ns]").astype(np.int64)
    order = np.argsort(at, kind="stable")[-MAX_SHOWN_POINTS:]
    some = found.loc[here].iloc[order]
    suffix = "" if len(judged) == 1 else f":{channel}"

    # The rows of an anomaly have the usual range of its quantity, such as a step, in place of the forecast.
    stated = some["anomaly"].notna() if "anomaly" in some else pd.Series(False, index=some.index)

    def listed(values: Any) -> list[float | None]:
        return [float(v) if abs(v) < UNBOUNDED else None for v in np.asarray(values, np.float64)]

    return {
        "time_ms": (at[order] / 1e6).tolist(),
        "observed": listed(frame.loc[here, channel].iloc[order]),
        "flags": some["flag"].to_numpy().astype(int).tolist(),
        **{name: listed(some[f"{name}{suffix}"].mask(stated)) for name in ("expected", "lower", "upper")},
    }


def _yaml(query: dict[str, str], time: str, series: str, channels: list[str]) -> str:
    """Return the part of a config that scores as the page does."""
    stream = {
        "source": {"files": {"paths": ["FOLDER/*.csv"], "follow": True}},
        "format": {"csv": {"series": [series] if series else [], "time": time, "values": channels}},
        "preset": _one_of(query, "preset", _PRESETS),
        **_KEYS_OF_A_FILE,
        **changed_settings(query),
    }
    return yaml_of({"streams": {"tried": stream}})


def changed_settings(query: dict[str, str], before: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the keys of a stream's config for settings that differ from others.

    Args:
        query: Settings of the page.
        before: The others; None for the defaults.

    Raises:
        InputError: a setting cannot be used.
    """
    settings, others = _settings(query), _settings(before or {})
    return {key: value for key, value in settings.items() if value != others[key]}
