"""Verdicts on a file or on recorded points, and the config that gives them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from pipeline.config.schema import Config, Stream
from pipeline.core.errors import InputError
from pipeline.services.dataframe import detect
from storage.history.parquet import UNBOUNDED
from storage.history.reader import HistoryReader

MAX_FILE_BYTES = 20 << 20
MAX_ROWS = 20_000
MAX_CHANNELS = 6
MAX_SHOWN_POINTS = 4_000
MAX_NAMES = 200
_KEYS_OF_A_FILE = {"detector": "light"}
_KEYS_OF_VERDICTS = {
    *("decision", "every", "gap", "calendar", "timezone", "holidays", "threshold", "interval", "close_after"),
}
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


def try_recorded(config: Config, stream: str, query: dict[str, str]) -> dict[str, Any]:
    """Return the verdicts on the newest recorded points of a stream.

    A setting that the query leaves out is that of the stream. The answer has the settings, and the keys of
    the config of the stream that give the same.

    Args:
        config: The configuration.
        stream: Name of the stream.
        query: Settings of the page.

    Raises:
        InputError: nothing is recorded, or a setting cannot be used.
        OSError: the recorded history cannot be read.
    """
    chosen = config.streams[stream]
    columns = [f"value:{channel}" for channel in chosen.channels]
    table, _ = HistoryReader(config.history_path).read_newest(stream, MAX_ROWS, columns=columns)
    if not table.num_rows:
        raise InputError(f"stream {stream} has no recorded points; drop a file instead")
    names = table.column("series").cast("string").to_pylist()
    values = {channel: table.column(f"value:{channel}").to_numpy() for channel in chosen.channels}
    time = pd.to_datetime(table.column("time").to_numpy(), utc=True)
    frame = pd.DataFrame({"time": time, "series": names} | values)
    own = {
        "preset": chosen.preset,
        "sensitivity": chosen.sensitivity or "normal",
        "direction": chosen.direction,
        "min_deviation": str(chosen.min_deviation),
        "min_points": str(chosen.min_points),
        "timezone": chosen.local_timezone or "UTC",
        "holidays": chosen.holidays or NO_HOLIDAYS,
    }
    asked = {k: v for k, v in query.items() if v}
    given = own | {"time": "time", "series": "series"} | asked
    found = tried(frame.sort_values("time", kind="stable", ignore_index=True), given, _own_keys(chosen))
    changed = {"preset": given["preset"]} | changed_settings(given, own)
    if "alarm_rate" in chosen.model_fields_set:  # the page judges by a sensitivity, which replaces the rate
        changed["sensitivity"] = given["sensitivity"]
    return found | {"yaml": yaml_of({"streams": {stream: changed}})}


def _own_keys(stream: Stream) -> dict[str, Any]:
    """Return the keys of a stream that decide beside the settings of the page."""
    return stream.model_dump(include=_KEYS_OF_VERDICTS, exclude_unset=True) | {"detector": stream.detector}


def tried(
    frame: pd.DataFrame, query: dict[str, str], keys: Mapping[str, Any] = _KEYS_OF_A_FILE
) -> dict[str, Any]:
    """Return the verdicts on a frame, and the config that gives the same.

    Args:
        frame: One row per point.
        query: Settings of the page.
        keys: Further keys of a stream's config.

    Raises:
        InputError: a setting cannot be used.
    """
    rows = len(frame)
    time, series = _time_and_series(frame, query)
    numeric = [c for c in frame.select_dtypes("number").columns if c not in (time, series)]
    channels = _channels(query, numeric)
    frame = frame.tail(MAX_ROWS).reset_index(drop=True)
    settings = _settings(query)
    found = detect(
        frame,
        values=channels[:MAX_CHANNELS],
        time=time,
        series=series or None,
        preset=_one_of(query, "preset", _PRESETS),
        **{**keys, **settings},
    )
    names = frame[series].astype(str) if series else pd.Series("frame", index=frame.index)
    of_series = _of_series(found["flag"], names, query.get("show"))
    return {
        "rows": rows,
        "used": len(frame),
        "columns": [str(c) for c in frame.columns],
        "numeric": [str(c) for c in numeric],
        "time": time,
        "series": series,
        "values": channels,
        **of_series,
        "flagged": int(found["flag"].sum()),
        "settings": {name: NO_HOLIDAYS if value is None else str(value) for name, value in settings.items()},
        "preset": _one_of(query, "preset", _PRESETS),
        "detector": keys["detector"],
        **_points(frame, found, time, names == of_series["shown"], channels),
        "yaml": _yaml(query, time, series, channels),
    }


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
    frame: pd.DataFrame, found: pd.DataFrame, time: str, here: pd.Series, channels: list[str]
) -> dict[str, Any]:
    """Return the newest points of the rows ``here``, of the first channel."""
    at = pd.to_datetime(frame.loc[here, time], utc=True).to_numpy("datetime64[ns]").astype(np.int64)
    order = np.argsort(at, kind="stable")[-MAX_SHOWN_POINTS:]
    some, channel = found.loc[here].iloc[order], channels[0]
    suffix = "" if len(channels) == 1 else f":{channel}"

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


def yaml_of(tree: dict[str, Any]) -> str:
    """Return a tree as YAML."""
    text = io.StringIO()
    YAML().dump(tree, text)
    return text.getvalue()
