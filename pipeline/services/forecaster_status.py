"""The forecaster status of a series.

It has the active forecaster, the reason, and the next candidate. The champion is run over the stored points
of the series.
"""

from __future__ import annotations

from dataclasses import dataclass

from detectors.base import FORECASTERS, State
from detectors.stages.forecaster_selection import (
    COL_ROWS,
    FORECASTER_LAST_VALUE,
    FORECASTER_LSTM,
    FORECASTER_NETWORK,
    MIN_ROWS_BEFORE_SELECTION,
)
from detectors.stages.ridge_readout import COL_ROWS as COL_READOUT_ROWS
from detectors.stages.ridge_readout import MIN_ROWS_BEFORE_FIT
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.engine.initial_state import initial_states
from pipeline.models.champion import champion_of
from pipeline.services.explain import points_of
from storage.history.reader import HistoryReader
from storage.sql.database import Database


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """Forecaster status of one channel.

    errors: recent mean error of each forecaster in steps of the series; None without a forecast.
    """

    channel: str
    forecaster: str
    points: int
    errors: dict[str, float | None]
    why: str
    next: str


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """Forecaster status of a series; ``forecaster`` is that of its last verdict."""

    stream: str
    series: str
    forecaster: str
    model_version: str
    last_ns: int
    channels: list[ChannelStatus]


def series_status(config: Config, database: Database, stream: str, series: str) -> SeriesStatus:
    """Return the forecaster status of ``series``.

    Raises:
        InputError: the history does not have the series, or its detector does not select a forecaster.
    """
    champion = champion_of(database, stream, config.streams[stream])
    table = HistoryReader(config.history_path).read(stream, series=series)
    if not table.num_rows:
        raise InputError(
            f"the history of stream {stream} has no series {series!r}; give the complete name, "
            f"as `forewatch anomalies list` shows it"
        )
    channels = list(config.streams[stream].channels)
    points = points_of(table, channels)
    state = initial_states(database, champion, config.streams[stream], {series: int(points.time[0])})
    state, verdicts = champion.detector.step(state, points)
    if "ladder.error" not in state:
        raise InputError(
            f"the detector {config.streams[stream].detector} of stream {stream} does not select a forecaster"
        )
    last = FORECASTERS[int(verdicts.forecaster[-1])]
    network = FORECASTERS[FORECASTER_NETWORK if "+" in champion.detector.state_version else FORECASTER_LSTM]
    channel_statuses = [
        _channel_status(state, place, channel, last, network) for place, channel in enumerate(channels)
    ]
    return SeriesStatus(
        stream, series, last, champion.provenance.model_version, int(points.time[-1]), channel_statuses
    )


def _channel_status(state: State, place: int, channel: str, last: str, network: str) -> ChannelStatus:
    points = int(state["ladder.gauss"][0, place, COL_ROWS])
    recent = state["ladder.error"][0, place, :FORECASTER_LAST_VALUE]
    candidates = list(FORECASTERS[1 : 1 + FORECASTER_LAST_VALUE])
    candidates[FORECASTER_LSTM - 1] = network
    errors = {
        name: round(float(error), 3) if error > 0 else None
        for name, error in zip(candidates, recent, strict=True)
    }
    clock = state.get("readout.clock")
    seen = int(clock[0, place, COL_READOUT_ROWS]) if clock is not None else 0
    known = {name: error for name, error in errors.items() if error is not None}
    if points < MIN_ROWS_BEFORE_SELECTION:
        forecaster = FORECASTERS[1] if points else FORECASTERS[0]
        return ChannelStatus(
            channel,
            forecaster,
            points,
            errors,
            f"{points} points are too few to compare forecasts",
            f"seasonal, gaussian in {MIN_ROWS_BEFORE_SELECTION - points} points",
        )
    if not known:
        return ChannelStatus(
            channel,
            last,
            points,
            errors,
            "no forecaster has had an error: the value has never changed",
            _next(last, clock is not None, seen, network),
        )
    forecaster = min(known, key=lambda name: (known[name], -FORECASTERS.index(name)))
    why = "its recent error is the smallest: " + ", ".join(
        f"{name} {error:g}" for name, error in sorted(known.items(), key=lambda one: one[1])
    )
    following = _next(forecaster, clock is not None, seen, network)
    return ChannelStatus(channel, forecaster, points, errors, why, following)


def _next(forecaster: str, has_lstm: bool, seen: int, network: str) -> str:
    if forecaster == network:
        return f"none: {network} is the last candidate"
    if not has_lstm:
        return "none: this detector has no LSTM (standard and strong have one)"
    if seen < MIN_ROWS_BEFORE_FIT:
        return f"{network} in {MIN_ROWS_BEFORE_FIT - seen} points at the earliest"
    return f"{network}, once its recent error is the smallest"
