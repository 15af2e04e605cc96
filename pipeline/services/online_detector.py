"""A stateful detector with the conventions of river and scikit-learn.

>>> detector = Detector(values=["temperature"], time="ts")
>>> for row in rows:
...     score = detector.score_one(row)
...     detector.learn_one(row)
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pipeline.core.errors import DamagedState, InputError
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.dataframe import PARTITION, build_scorer, make_table, to_pandas
from pipeline.sources.base import TableRecords

#: Time of the first row where rows have no time of their own.
FIRST_TICK = pd.Timestamp("2000-01-01", tz="UTC")
_BUFFERING = ("lateness", "aggregate")
_META = "meta.json"
_FORMAT = 1

Rows = Mapping[str, Any] | pd.DataFrame | ArrayLike


class Detector:
    """Detector that learns and scores rows as they come.

    A row is a mapping (river), a data frame or an array (scikit-learn). ``score_*`` and ``predict`` leave the
    state as it is; ``learn_one``, ``learn_many`` and ``fit`` advance it. Rows of a series must come in the order
    of time; an older one is not learned.
    """

    def __init__(
        self,
        values: list[str] | None = None,
        *,
        time: str | None = None,
        series: str | list[str] | None = None,
        **stream: Any,
    ) -> None:
        """Configure the detector.

        Args:
            values: Names of the values. Default: all numbers of the first row.
            time: Name of the time. Default: the index of a frame, or else one row every ``every`` (1m).
            series: Name or names of what identifies the series. Default: one series.
            stream: further keys of a stream's config, such as ``detector="light"`` or ``preset="network"``.

        Raises:
            InputError: a key needs rows to be held back, so a row could not be scored at once.
        """
        if found := [key for key in _BUFFERING if key in stream]:
            raise InputError(f"Detector: {' and '.join(found)} would hold rows back; leave it out")
        self.values, self.time, self.series, self.stream = values, time, series, stream
        self._scorer: StreamScorer | None = None
        self._ticks = 0

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor (scikit-learn)."""
        return {"values": self.values, "time": self.time, "series": self.series, **self.stream}

    def set_params(self, **params: Any) -> Detector:
        """Change arguments of the constructor (scikit-learn); the state is lost."""
        self.__init__(**(self.get_params() | params))  # type: ignore[misc]
        return self

    # ------------------------------------------------------------------------------------------------ river

    def learn_one(self, x: Mapping[str, Any]) -> None:
        """Learn one row."""
        self.learn_many(x)

    def learn_many(self, rows: Rows) -> None:
        """Learn rows in the order of time."""
        frame = self._frame(rows)
        self._process(self._live(frame), frame)
        self._ticks += len(frame)

    def score_one(self, x: Mapping[str, Any]) -> float:
        """Return 1 − p-value of a next row; 0 while too little is known."""
        return float(self._ahead(x)["score"][0])

    def verdict_one(self, x: Mapping[str, Any]) -> dict[str, Any]:
        """Return score, surprise, flag, cause and expected values of a next row."""
        return {name: column[0] for name, column in self._ahead(x).items()}

    # ------------------------------------------------------------------------------------------------ scikit-learn

    def fit(self, X: Rows, y: object = None) -> Detector:
        """Forget everything, and learn the rows."""
        self._scorer, self._ticks = None, 0
        self.learn_many(X)
        return self

    def score_samples(self, X: Rows) -> NDArray[np.float64]:
        """Return −surprise of rows that come next: the lower, the more unusual."""
        return -self._ahead(X)["surprise"].astype(np.float64)

    def predict(self, X: Rows) -> NDArray[np.int64]:
        """Return −1 for an alarm and 1 for any other row."""
        return np.where(self._ahead(X)["flag"], -1, 1)

    def fit_predict(self, X: Rows, y: object = None) -> NDArray[np.int64]:
        """Learn the rows one after the other, and return the alarms among them as −1."""
        self._scorer, self._ticks = None, 0
        frame = self._frame(X)
        found = self._process(self._live(frame), frame)
        self._ticks += len(frame)
        return np.where(found["flag"], -1, 1)

    # ------------------------------------------------------------------------------------------------ files

    def save(self, path: str | Path) -> None:
        """Write configuration and state to one file, without pickle.

        Raises:
            InputError: nothing was learned, or the file cannot be written.
        """
        if self._scorer is None:
            raise InputError("Detector: nothing was learned, so there is nothing to save")
        scorer = self._scorer
        meta = {
            "format": _FORMAT,
            "params": self.get_params(),
            "ticks": self._ticks,
            "fields": self._fields,
            "detector": scorer.detector.version,
            "windows": scorer.meta(),
        }
        try:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr(_META, json.dumps(meta))
                for number, page in enumerate(scorer.pages(PARTITION, np.empty(0, np.int32))):
                    file.writestr(f"{number:06}.safetensors", page)
        except (OSError, TypeError) as error:
            raise InputError(f"Detector: {path} cannot be written: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read what ``save`` wrote.

        Raises:
            InputError: the file is no detector, is damaged, or its state is that of another version.
        """
        try:
            with zipfile.ZipFile(path) as file:
                meta = json.loads(file.read(_META))
                pages = [file.read(name) for name in sorted(file.namelist()) if name != _META]
            loaded = cls(**meta["params"])
            loaded._ticks, loaded._fields = int(meta["ticks"]), meta["fields"]
            loaded._scorer = scorer = loaded._made(meta["fields"])
            if meta["detector"] != scorer.detector.version:
                raise InputError(
                    f"Detector: {path} has the state of {meta['detector']}, this version needs "
                    f"{scorer.detector.version}; fit it again"
                )
            scorer.restore(PARTITION, meta["windows"], pages)
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, DamagedState) as error:
            raise InputError(f"Detector: {path} cannot be read: {error}") from error
        return loaded

    # ------------------------------------------------------------------------------------------------ rows

    def _frame(self, rows: Rows) -> pd.DataFrame:
        """Return rows as a frame that has times."""
        if isinstance(rows, Mapping):
            frame = pd.DataFrame([rows])
        elif isinstance(rows, np.ndarray | list | tuple):
            columns = np.asarray(rows, np.float64)
            columns = columns[:, None] if columns.ndim == 1 else columns
            frame = pd.DataFrame(columns, columns=[f"x{i}" for i in range(columns.shape[1])])
        else:
            frame = to_pandas(rows)[0]
        if self.time is None and not isinstance(frame.index, pd.DatetimeIndex):
            every = pd.Timedelta(self.stream.get("every", "1min"))
            frame = frame.set_axis(FIRST_TICK + every * (self._ticks + np.arange(len(frame))), axis=0)
        return frame

    def _live(self, frame: pd.DataFrame) -> StreamScorer:
        if self._scorer is None:
            self._fields = make_table(frame, self.values, self.time, self.series)[1]
            self._scorer = self._made(self._fields)
        return self._scorer

    def _made(self, fields: dict[str, Any]) -> StreamScorer:
        return build_scorer({"format": {"csv": fields}, "detector": "standard"} | self.stream)

    def _process(self, scorer: StreamScorer, frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Score rows with ``scorer``, and return its verdicts by row of the frame."""
        channels = list(scorer.stream.channels)
        table, _, order = make_table(frame, channels, self.time, self.series)
        rows = len(table)
        unstamped = np.full(rows, -1, np.int64)
        result = scorer.process([TableRecords(PARTITION, 0, rows, np.arange(rows), unstamped, table)])
        dead = result.outcomes[PARTITION].dead
        if rows and len(dead) == rows:
            raise InputError(f"Detector: no row can be used; {dead[-1].reason}: {dead[-1].detail}")
        return _verdicts(result, rows, order, channels)

    def _ahead(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return the verdicts on rows that come next; the state stays as it is."""
        frame = self._frame(rows)
        live = self._live(frame)
        probe = self._made(self._fields)
        probe.detector = live.detector
        probe.restore(PARTITION, live.meta(), live.pages(PARTITION, np.empty(0, np.int32)))
        return self._process(probe, frame)


def _verdicts(
    result: BatchResult, rows: int, order: NDArray[np.intp], channels: list[str]
) -> dict[str, NDArray[Any]]:
    from detectors.base import CAUSES

    found: dict[str, NDArray[Any]] = {
        "score": np.zeros(rows, np.float32),
        "surprise": np.zeros(rows, np.float32),
        "flag": np.zeros(rows, np.bool_),
        "cause": np.full(rows, "none", object),
    }
    found |= {f"expected:{channel}": np.full(rows, np.nan, np.float32) for channel in channels}
    if result.scored is None:
        return found
    real = result.scored.offset >= 0
    at, verdicts = order[result.scored.offset[real]], result.scored.verdicts
    for name in ("score", "surprise", "flag"):
        found[name][at] = getattr(verdicts, name)[real]
    found["cause"][at] = np.array(CAUSES, object)[verdicts.cause[real]]
    for i, channel in enumerate(channels):
        found[f"expected:{channel}"][at] = verdicts.expected[real, i]
    return found
