"""Verdicts on recorded points with other settings, and the config of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.config.schema import Config, Stream
from pipeline.config.yaml_text import yaml_of
from pipeline.core.errors import InputError
from pipeline.engine.initial_state import copy_initial_states, scorer_with_initial_states
from pipeline.models.champion import champion_of
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.dataframe import PARTITION
from pipeline.services.try_file import (
    MAX_CHANNELS,
    MAX_ROWS,
    NO_HOLIDAYS,
    changed_settings,
    tried,
)
from storage.history.reader import HistoryReader
from storage.results import anomalies
from storage.sql.database import Database

#: Fewer rows of each series say little; fewer series are then judged.
MIN_ROWS_PER_SERIES = 500
MAX_FEW_SERIES = 20
_RECENT_ANOMALIES = 200
_KEYS_OF_VERDICTS = {
    *("decision", "every", "gap", "calendar", "timezone", "holidays", "threshold", "interval", "close_after"),
}


def try_recorded(database: Database, config: Config, stream: str, query: dict[str, str]) -> dict[str, Any]:
    """Return the verdicts on the newest recorded points of a stream.

    A setting that the query leaves out is that of the stream. All channels are judged together, as the daemon
    does; ``values`` names the shown one. With a warm start, series begin with its states. The answer has the
    settings, and the keys of the config of the stream that give the same.

    Args:
        database: The database.
        config: The configuration.
        stream: Name of the stream.
        query: Settings of the page.

    Raises:
        InputError: nothing is recorded, or a setting cannot be used.
        OSError: the recorded history cannot be read.
    """
    chosen = config.streams[stream]
    asked = {k: v for k, v in query.items() if v}
    frame = _frame(_read(database, config, stream, asked.get("show")), chosen.channels)
    own = own_settings(chosen)
    given = own | {"time": "time", "series": "series"} | asked
    judged = _judged(chosen.channels, asked.get("values"))

    def prepare(scorer: StreamScorer) -> bool:
        same = given["preset"] == chosen.preset and judged == list(chosen.channels)
        return same and _begin_warm(database, (stream, chosen), scorer, frame)

    found = tried(frame, given, _own_keys(chosen), judged, prepare)
    if chosen.warm_start is not None and given["preset"] != chosen.preset:
        found["notes"].insert(0, f"What the stream learned from warm_start is of the kind {chosen.preset}.")
    changed = {"preset": given["preset"]} | changed_settings(given, own)
    if "alarm_rate" in chosen.model_fields_set:  # the page judges by a sensitivity, which replaces the rate
        changed["sensitivity"] = given["sensitivity"]
    return found | {"yaml": yaml_of({"streams": {stream: changed}})}


def own_settings(stream: Stream) -> dict[str, str]:
    """Return the settings of the page that a stream has."""
    return {
        "preset": stream.preset,
        "sensitivity": stream.sensitivity or "normal",
        "direction": stream.direction,
        "min_deviation": str(stream.min_deviation),
        "min_points": str(stream.min_points),
        "timezone": stream.local_timezone or "UTC",
        "holidays": stream.holidays or NO_HOLIDAYS,
    }


def _own_keys(stream: Stream) -> dict[str, Any]:
    """Return the keys of a stream that decide beside the settings of the page."""
    return stream.model_dump(include=_KEYS_OF_VERDICTS, exclude_unset=True) | {"detector": stream.detector}


def _judged(channels: Sequence[str], shown: str | None) -> list[str]:
    """Return the channels that are judged together, with the shown one."""
    some = list(channels)[:MAX_CHANNELS]
    return some if shown is None or shown in some or shown not in channels else [shown, *some[:-1]]


def _read(database: Database, config: Config, stream: str, shown: str | None) -> pa.Table:
    """Return the newest points; of few series where all of them have few rows each."""
    columns = [f"value:{channel}" for channel in config.streams[stream].channels]
    history = HistoryReader(config.history_path)
    table, left_out = history.read_newest(stream, MAX_ROWS, columns=columns)
    if not table.num_rows:
        raise InputError(f"stream {stream} has no recorded points; drop a file instead")
    names = table.column("series").unique().to_pylist()
    if not left_out or table.num_rows >= MIN_ROWS_PER_SERIES * len(names):
        return table
    with database.read() as connection:
        recent = anomalies.query(connection, stream=stream, limit=_RECENT_ANOMALIES)
    order = dict.fromkeys([*([shown] if shown else []), *(one.series for one in recent), *names])
    read = set(names)
    few = [name for name in order if name in read][:MAX_FEW_SERIES]
    return history.read_newest(stream, MAX_ROWS, series=few, columns=columns)[0]


def _frame(table: pa.Table, channels: Sequence[str]) -> pd.DataFrame:
    """Return points by time, one column for each channel."""
    names = table.column("series").cast("string").to_pylist()
    values = {channel: table.column(f"value:{channel}").to_numpy() for channel in channels}
    time = pd.to_datetime(table.column("time").to_numpy(), utc=True)
    frame = pd.DataFrame({"time": time, "series": names} | values)
    return frame.sort_values("time", kind="stable", ignore_index=True)


def _begin_warm(
    database: Database, of: tuple[str, Stream], scorer: StreamScorer, frame: pd.DataFrame
) -> bool:
    """Give series their states of the warm start, as in the daemon.

    Return whether there are such states.
    """
    name, stream = of
    if stream.warm_start is None:
        return False
    initial = scorer_with_initial_states(database, champion_of(database, name, stream), stream)
    if not _alike(initial.series.state, scorer.series.state):
        return False
    firsts = frame.groupby("series")["time"].min()
    first_ns = {str(one): int(at.value) for one, at in firsts.items()}
    copy_initial_states(initial, scorer, PARTITION, first_ns)
    return bool((scorer.series.state["windows"]["seq"] > 0).any())


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if arrays of state have the same names, types and widths."""

    def shape(state: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
        return {
            (layer, name): (array.dtype, array.shape[1:])
            for layer, arrays in state.items()
            for name, array in arrays.items()
        }

    known = shape(one)
    return all(known.get(key) == value for key, value in shape(other).items())
