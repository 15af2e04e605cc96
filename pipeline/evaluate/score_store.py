"""Per-row scores on disk, as CSVs that other scorers can read.

They are written when a series is finished, and read back when a run is resumed.

    DIR/run.json                                        settings of the scores; scores of other settings are not reused
    DIR/<series>.csv                                    timestamp,value,score,expected,lower,upper,flag,surprise
    DIR/results/<detector>/<group>/<detector>_<file>.csv  layout nab: timestamp,value,anomaly_score,label, for its official scorer

``score`` is 1 − 10^−surprise: above a surprise of about 15 it is 1, so a scorer that ranks should read
``surprise``. With several channels there are expected_<channel>, lower_<channel>, upper_<channel>; a missing
value is an empty field.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.evaluate.layouts import Labelled
from pipeline.evaluate.scoring_run import Scores

_BAND = ("expected", "lower", "upper")


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of scores; ``key`` has everything on which they depend, but the series."""

    folder: Path
    detector: str
    key: str
    official: bool  # also in the layout of NAB's scorer

    @classmethod
    def open(cls, folder: Path, detector: str, key: str, official: bool) -> Store:
        """Make the folder, or open an existing one. Raises InputError.

        Scores of another key are overwritten when their series is finished.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run = folder / "run.json"
            if not run.is_file() or json.loads(run.read_text()).get("key") != key:
                run.write_text(
                    json.dumps({"key": key, "detector": detector, "seconds": {}, "dropped": {}, "data": {}})
                )
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: cannot write scores there: {error}") from None
        return cls(folder, detector, key, official)

    def finished(self, series: Labelled) -> float | None:
        """Return the seconds of stored scores of exactly these times and values, or None."""
        state = self._state()
        seconds: dict[str, float] = state["seconds"]
        return seconds.get(series.name) if state["data"].get(series.name) == _digest(series) else None

    def put(self, finished: dict[str, float], batch: list[tuple[Labelled, Scores]]) -> None:
        """Write the scores of some series, then record that they are complete."""
        for series, scores in batch:
            self._write(series, scores)
        state = self._state()
        state["seconds"] |= finished
        state["dropped"] |= {series.name: scores.dropped for series, scores in batch}
        state["data"] |= {series.name: _digest(series) for series, _ in batch}
        run = self.folder / "run.json"
        partial = run.with_suffix(".partial")
        partial.write_text(json.dumps(state))
        partial.replace(run)

    def get(self, series: Labelled) -> Scores:
        """Read back the scores that ``put`` wrote.

        Raises InputError if the file was changed.
        """
        path = self._path(series)
        try:
            table = pa_csv.read_csv(path)
            columns = {
                part: [_floats(table, name) for name in _names(part, series.channels)] for part in _BAND
            }
            expected, lower, upper = (np.stack(band, axis=1).astype(np.float32) for band in columns.values())
            scores = Scores(
                _floats(table, "surprise"), table["flag"].to_numpy().astype(bool), expected, lower, upper
            )
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{path}: cannot read the scores back: {error}; remove the folder to score again"
            ) from None
        if len(scores.flag) != len(series):
            raise InputError(
                f"{path}: {len(scores.flag)} rows for a series of {len(series)}; remove the folder "
                f"to score again"
            )
        scores.dropped = self._state()["dropped"][series.name]
        if "rarity" in table.column_names:  # not in scores of an earlier version
            scores.rarity = _floats(table, "rarity")
        return scores

    def _state(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "run.json").read_text()))

    def _path(self, series: Labelled) -> Path:
        return self.folder / f"{series.name}.csv"

    def _write(self, series: Labelled, scores: Scores) -> None:
        columns: dict[str, Any] = {"timestamp": series.stamps}
        columns |= {name: series.values[:, c] for c, name in enumerate(series.channels)}
        columns["score"] = scores.score
        for part in _BAND:
            columns |= {
                name: getattr(scores, part)[:, c] for c, name in enumerate(_names(part, series.channels))
            }
        columns |= {"flag": scores.flag.astype(np.int8), "surprise": scores.surprise}
        if len(scores.rarity):
            columns["rarity"] = scores.rarity
        _write_csv(self._path(series), columns)
        if self.official:
            name = PurePosixPath(series.name)
            path = self.folder / "results" / self.detector / name.parent / f"{self.detector}_{name.name}.csv"
            official = {
                "timestamp": series.stamps,
                "value": series.values[:, 0],
                "anomaly_score": scores.score,
            }
            _write_csv(path, official | {"label": series.label.astype(np.int8)})


def _digest(series: Labelled) -> str:
    """Return a digest of the scored data.

    It detects a corrected file, and another data set with the same names.
    """
    digest = blake2b(repr(series.channels).encode(), digest_size=8)
    digest.update(series.time.tobytes() + series.values.tobytes())
    return digest.hexdigest()


def _names(part: str, channels: tuple[str, ...]) -> list[str]:
    return [part] if len(channels) == 1 else [f"{part}_{channel}" for channel in channels]


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)


def _write_csv(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # NaN becomes an empty field
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    partial = path.with_suffix(".partial")
    pa_csv.write_csv(pa.table(arrays), partial, pa_csv.WriteOptions(quoting_style="needed"))
    partial.replace(path)
