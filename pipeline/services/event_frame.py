"""Detection in sequences of events of a pandas frame.

>>> from forewatch import fit_events
>>> model = fit_events(normal, event="code", key="batch", time="ts")
>>> verdicts = model.score(frame)
>>> frame[verdicts["flag"]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detectors.artifacts import ArtifactError
from detectors.sequences.detector import EventCause, Events, EventVerdicts, NextEventDetector
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN
from pipeline.core.errors import InputError
from pipeline.core.event_text import event_statement
from pipeline.core.extras import require_training
from pipeline.services.frame_times import frame_times

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from detectors.sequences.fit import Piece


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Columns of a frame of events.

    event: code of the event.
    key: name of the session or of the source of the event. Default: one for all rows.
    time: event time. Default: the order of the rows.
    idle: pause after which a new session of the key begins, such as ``"10min"``. Default: one session a key.
    sessions: False if the events of a key go on without an end. Then no end is judged.
    """

    event: str
    key: str | None = None
    time: str | None = None
    idle: str | None = None
    sessions: bool = True


class EventModel:
    """A fitted model of the order of events."""

    def __init__(self, detector: NextEventDetector, columns: EventColumns) -> None:
        """Use a detector on frames with these columns."""
        self.detector, self.columns = detector, columns

    def score(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Judge each event given the events before it in its session.

        Returns:
            A frame with the index of ``frame`` and these columns:

            - probability: of the event, given the events before it.
            - surprise: −log10 of the probability of an event that is at most as probable.
            - flag: the event is an alarm, or the session ended after it too early.
            - cause: unexpected_event, missing_event, new_event, unusual_sequence, or none.
            - statement: one sentence on an alarm, empty on other rows.

        Raises:
            InputError: a column is missing.
        """
        order, session = _sessions(frame, self.columns)
        texts = frame[self.columns.event].astype("string").fillna("").to_numpy(object)[order]
        token, slot = self.detector.vocabulary.encode(texts), session
        row = np.arange(len(order))
        if self.columns.sessions and len(order):
            token, slot, row = _with_ends(token, session)
        keys = int(slot.max()) + 1 if len(slot) else 1
        _, verdicts = self.detector.step(self.detector.initial(keys), Events(slot, token))
        return self._frame(frame.index, order, texts, token, row, verdicts)

    def save(self, path: str) -> str:
        """Write two files and return the digest. Raises InputError."""
        try:
            return self.detector.save(path)
        except ArtifactError as error:
            raise InputError(str(error)) from error

    @classmethod
    def load(cls, path: str, columns: EventColumns, digest: str | None = None) -> EventModel:
        """Read a model that ``save`` wrote. Raises InputError."""
        try:
            return cls(NextEventDetector.load(path, digest), columns)
        except ArtifactError as error:
            raise InputError(str(error)) from error

    def _frame(
        self,
        index: pd.Index[Any],
        order: NDArray[np.int64],
        texts: NDArray[np.object_],
        token: NDArray[np.int32],
        row: NDArray[np.int64],
        verdicts: EventVerdicts,
    ) -> pd.DataFrame:
        """Return the verdicts by row; the last event has that of the end."""
        n = len(order)
        probability, surprise = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
        cause, statement = np.zeros(n, np.uint8), np.full(n, "", object)
        for at in np.flatnonzero((token != BOUNDARY) | verdicts.flag).tolist():
            place, ended = row[at], token[at] == BOUNDARY
            surprise[place] = max(surprise[place], verdicts.surprise[at])
            if not ended:
                probability[place] = verdicts.probability[at]
            if verdicts.flag[at] and not cause[place]:
                cause[place] = verdicts.cause[at]
                statement[place] = self._statement(verdicts, at, texts[place])
        names = np.array([one.name.lower() for one in EventCause], object)
        found = {
            "probability": probability,
            "surprise": surprise,
            "flag": cause != EventCause.NONE,
            "cause": names[cause],
            "statement": statement,
        }
        back = np.empty(n, np.int64)
        back[order] = np.arange(n)
        return pd.DataFrame({name: values[back] for name, values in found.items()}, index=index)

    def _statement(self, verdicts: EventVerdicts, at: int, text: str) -> str:
        vocabulary = self.detector.vocabulary
        return event_statement(
            EventCause(int(verdicts.cause[at])).name.lower(),
            text,
            float(verdicts.probability[at]),
            [vocabulary.text(t) for t in verdicts.recent[at].tolist() if t >= 0],
            [
                (vocabulary.text(t), p)
                for t, p in zip(
                    verdicts.expected[at].tolist(), verdicts.expected_probability[at].tolist(), strict=True
                )
                if t != UNKNOWN
            ],
        )


def fit_events(
    frame: pd.DataFrame,
    *,
    event: str,
    alarm_rate: float | None = None,
    seed: int = 0,
    **columns: Any,
) -> EventModel:
    """Learn the order of events from a frame of ordinary operation.

    Args:
        frame: One row per event.
        event: Column of the event codes.
        alarm_rate: Share of ordinary sessions (without sessions: of events) that may raise an alarm. Default:
            one session in 100, one event in 10,000.
        seed: Seed of the training.
        columns: key, time, idle and sessions of ``EventColumns``.

    Raises:
        InputError: a column is missing, or there are too few sessions.
        NotInstalled: training needs ``forewatch[train]``.
    """
    require_training()
    from detectors.sequences.fit import fit_detector

    try:
        named = EventColumns(event, **columns)
    except TypeError as error:
        raise InputError(f"fit_events: {error}") from error
    order, session = _sessions(frame, named)
    texts = frame[event].astype("string").fillna("").to_numpy(object)[order]
    by_session = np.argsort(session, kind="stable")
    ends = np.flatnonzero(np.diff(session[by_session])) + 1
    parts = [rows for rows in np.split(by_session, ends) if len(rows)]
    sequences = [list(texts[rows]) for rows in parts] if named.sessions else _pieces(texts, parts)
    try:
        detector, _ = fit_detector(sequences, sessions=named.sessions, alarm_rate=alarm_rate, seed=seed)
    except ValueError as error:
        raise InputError(f"fit_events: {error}") from error
    return EventModel(detector, named)


def _pieces(texts: NDArray[np.object_], series: list[NDArray[np.int64]]) -> list[Piece]:
    """Return the parts of all series, each given by its rows, in the order of time."""
    from detectors.sequences.fit import PIECE_EVENTS, pieces_of

    found = [
        (rows[number * PIECE_EVENTS], piece)
        for rows in series
        for number, piece in enumerate(pieces_of(list(texts[rows])))
    ]
    return [piece for _, piece in sorted(found, key=lambda one: one[0])]


def _sessions(frame: pd.DataFrame, columns: EventColumns) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the rows in the order of time, and the session number of each of them."""
    for name in (columns.event, columns.key, columns.time):
        if name is not None and name not in frame.columns:
            raise InputError(
                f"there is no column {name!r}; the frame has {', '.join(map(str, frame.columns)) or 'none'}"
            )
    n = len(frame)
    when = frame[columns.time] if columns.time else None
    order = np.argsort(when.to_numpy(), kind="stable") if when is not None else np.arange(n)
    keys: ArrayLike = np.zeros(n, np.int64)
    if columns.key is not None:
        keys = pd.factorize(frame[columns.key], use_na_sentinel=False)[0]
    keys = np.asarray(keys, np.int64)[order]
    if columns.idle is None or when is None or not n:
        return order, keys.astype(np.int32)
    try:
        pause = pd.Timedelta(columns.idle)
    except ValueError as error:
        raise InputError(f"idle: {columns.idle!r} is not a duration such as '10min'") from error
    stamps = pd.Series(frame_times(when, "fit_events", columns.time)[order])
    begins = stamps.groupby(keys).diff().to_numpy() > pause.to_timedelta64()
    part = pd.Series(begins).groupby(keys).cumsum().to_numpy()
    return order, pd.factorize(pd.MultiIndex.from_arrays([keys, part]))[0].astype(np.int32)


def _with_ends(
    token: NDArray[np.int32], session: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Add the ends of the sessions; return tokens, sessions and rows."""
    last = len(session) - 1 - np.unique(session[::-1], return_index=True)[1]
    return (
        np.insert(token, last + 1, BOUNDARY),
        np.insert(session, last + 1, session[last]),
        np.insert(np.arange(len(token)), last + 1, last),
    )
