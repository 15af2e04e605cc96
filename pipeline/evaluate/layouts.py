"""Layouts of data sets on disk: list the series, and read one with its labels.

    nab       data/**/*.csv (timestamp, value) and combined_windows.json: file → [[first, last], …]
    labelled  CSVs (timestamp, one or more values, label; also .gz); there or one folder up, manifest.csv (file, rows, train_rows);
              there, if the kinds of anomaly are known, events.csv (file, kind, first, last: rows from 0)
    skab      **/*.csv separated by ';' (datetime, eight sensors, anomaly, changepoint)

A new layout is one function in ``LAYOUTS``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import md5
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.evaluate.accuracy_metrics import Segments, segments
from pipeline.evaluate.nab import probation

#: Rows of a SKAB file that its benchmark trains on.
SKAB_WARM_UP = 400

#: Seconds that fit into int64 nanoseconds: the year 2262. Milliseconds of our days lie far beyond.
_LAST_SECOND = 9_223_372_036.0


@dataclass(slots=True)
class Labelled:
    """One series with its labels: n rows, C channels.

    stamps (n,): times as the file writes them; time (n,) int64 ns since the epoch; values (n, C) float64;
    label (n,) bool; windows (k, 2): first and last labelled rows; kinds: the kind of each window, if the set
    has kinds. The first ``warm_up`` rows are not measured.
    """

    name: str
    stamps: NDArray[np.object_]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    channels: tuple[str, ...]
    label: NDArray[np.bool_]
    windows: Segments
    warm_up: int
    kinds: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.time)


@dataclass(frozen=True, slots=True)
class Entry:
    """A series that is not read yet: its file, and a function that reads it.

    ``read`` raises an InputError that names the file and the defect.
    """

    file: str
    read: Callable[[], Labelled]

    @property
    def name(self) -> str:
        return _stem(self.file)

    @property
    def half(self) -> str:
        """Return ``a`` or ``b``, by the md5 of the name of the file.

        Parameters are chosen on one half and reported on both.
        """
        return "ab"[int(md5(self.file.encode(), usedforsecurity=False).hexdigest(), 16) % 2]


def find(dataset: Path, layout: str, limit: int | None = None) -> list[Entry]:
    """Return the series of a data set in order of name, at most ``limit``.

    Raises InputError.
    """
    if not dataset.is_dir():
        wrong = "a file" if dataset.exists() else "no such folder"
        raise InputError(f"{dataset}: {wrong}; DATASET is the folder that holds the series")
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout}: there are {', '.join(LAYOUTS)}")
    entries = sorted(LAYOUTS[layout](dataset), key=lambda entry: entry.name)
    if not entries:
        raise InputError(
            f"{dataset}: no series in layout {layout}; `forewatch evaluate --help` shows what "
            f"each layout expects"
        )
    return entries[:limit]


# Layouts.


def _nab(dataset: Path) -> list[Entry]:
    labels = dataset / "combined_windows.json"
    try:
        windows = json.loads(labels.read_text())
    except FileNotFoundError:
        raise InputError(f"{labels}: no such file; layout nab needs it beside data/") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{labels}: cannot read the windows: {error}") from None

    return [
        Entry(file, partial(_read_nab, dataset / "data" / file, _stem(file), spans))
        for file, spans in windows.items()
    ]


def _read_nab(path: Path, name: str, spans: list[list[str]]) -> Labelled:
    series = _columns(_csv(path), path, name, time="timestamp")
    starts: dict[int, int] = {}
    for row, time in enumerate(series.time.tolist()):
        starts.setdefault(time, row)  # of repeated times the first counts, as in the official scorer
    try:
        rows = [[starts[pd.Timestamp(edge).value] for edge in span] for span in spans]
    except KeyError as error:
        raise InputError(
            f"{path}: a window begins or ends at {pd.Timestamp(error.args[0])}, and no row has that time"
        ) from None
    windows = np.array(sorted(rows), np.int64).reshape(-1, 2)
    label = np.zeros(len(series), bool)
    for first, last in windows:
        label[first : last + 1] = True
    return replace(series, label=label, windows=windows)


def _labelled(dataset: Path) -> list[Entry]:
    train = _manifest(dataset)
    if train is None:
        train = {
            path.relative_to(dataset).as_posix(): None
            for path in _csvs(dataset)
            if path.name not in ("manifest.csv", "events.csv")
        }

    kinds = _kinds(dataset)

    def read(file: str, train_rows: int | None) -> Labelled:
        path = dataset / file
        series = _columns(_csv(path), path, _stem(file), "timestamp", "label", train_rows)
        if file not in kinds:
            return series
        rows = kinds[file]
        windows = rows[["first", "last"]].to_numpy(np.int64)
        if wrong := [span for span in windows.tolist() if not 0 <= span[0] <= span[1] < len(series)]:
            raise InputError(
                f"{dataset / 'events.csv'}: {file} has no rows {wrong[0][0]} to {wrong[0][1]}: it "
                f"has {len(series)}, counted from 0"
            )
        return replace(series, windows=windows, kinds=tuple(rows["kind"]))

    return [Entry(file, partial(read, file, train_rows)) for file, train_rows in train.items()]


def _kinds(dataset: Path) -> dict[str, pd.DataFrame]:
    """Read the optional events.csv: file → its events in order.

    Its columns are file, kind, first and last row.
    """
    path = dataset / "events.csv"
    if not path.is_file():
        return {}
    table = _csv(path)
    if missing := {"file", "kind", "first", "last"} - set(table.columns):
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}; it needs file, kind, first, last")
    table["first"], table["last"] = _row_counts(table, path, "first"), _row_counts(table, path, "last")
    return {str(file): rows.sort_values("first") for file, rows in table.groupby("file")}


def _manifest(dataset: Path) -> dict[str, int | None] | None:
    """Read train_rows by file from manifest.csv, in the folder or one folder up.

    One folder up, the name of the folder precedes each file.
    """
    for folder, prefix in ((dataset, ""), (dataset.resolve().parent, dataset.resolve().name + "/")):
        path = folder / "manifest.csv"
        if not path.is_file():
            continue
        table = _csv(path)
        if missing := {"file", "train_rows"} - set(table.columns):
            raise InputError(
                f"{path}: no column {', '.join(sorted(missing))}; it needs file, rows, train_rows"
            )
        rows = dict(
            zip(table["file"].astype(str), _row_counts(table, path, "train_rows").tolist(), strict=True)
        )
        if inside := {
            file.removeprefix(prefix): train for file, train in rows.items() if file.startswith(prefix)
        }:
            return dict(inside)
        if not prefix:
            raise InputError(
                f"{path}: it names no file; list the series, or remove it to take every CSV in the folder"
            )
    return None


def _skab(dataset: Path) -> list[Entry]:
    files = {path.relative_to(dataset).as_posix(): path for path in _csvs(dataset)}
    return [Entry(file, partial(_read_skab, path, _stem(file))) for file, path in files.items()]


def _read_skab(path: Path, name: str) -> Labelled:
    table = _csv(path, ";").drop(columns="changepoint", errors="ignore")
    if "anomaly" not in table:
        table["anomaly"] = 0.0  # the recording of normal operation has no labels
    return _columns(table, path, name, "datetime", "anomaly", SKAB_WARM_UP)


LAYOUTS: dict[str, Callable[[Path], list[Entry]]] = {"nab": _nab, "labelled": _labelled, "skab": _skab}


# Files.


def _csvs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.csv*") if path.name.endswith((".csv", ".csv.gz"))]


def _stem(file: str) -> str:
    return file.removesuffix(".gz").removesuffix(".csv")


def _csv(path: Path, separator: str = ",") -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep=separator)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{path}: cannot be read as CSV: {str(error).strip()}") from None


def _columns(
    table: pd.DataFrame,
    path: Path,
    name: str,
    time: str,
    label: str | None = None,
    warm_up: int | None = None,
) -> Labelled:
    """Split a table into time, label, and values (all other columns, in order).

    Without ``warm_up`` the rule of NAB holds.
    """
    if missing := [column for column in (time, label) if column is not None and column not in table]:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; there are {', '.join(map(str, table.columns))}"
        )
    channels = tuple(str(column) for column in table.columns if column not in (time, label))
    if not channels or not len(table):
        raise InputError(f"{path}: {'no value column' if len(table) else 'no rows'}")
    values = np.stack(
        [_numbers(table, path, channel) for channel in table.columns if channel not in (time, label)], axis=1
    )
    marked = np.zeros(len(table), bool) if label is None else _numbers(table, path, label) > 0.5
    when = _nanoseconds(table, path, time)
    # layout nab labels by time, and in one of its files the clock was set back
    if label is not None:
        _refuse(
            table,
            path,
            time,
            np.diff(when, prepend=when[:1]) < 0,
            "lies before the row above; sort the file by time",
        )
    return Labelled(
        name=name,
        stamps=table[time].to_numpy(object),
        time=when,
        values=values,
        channels=channels,
        label=marked,
        windows=segments(marked),
        warm_up=min(probation(len(table)) if warm_up is None else warm_up, len(table)),
    )


def _numbers(table: pd.DataFrame, path: Path, column: str) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where it is empty."""
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    _refuse(table, path, column, table[column].notna().to_numpy() & ~np.isfinite(numbers), "is not a number")
    return numbers


def _row_counts(table: pd.DataFrame, path: Path, column: str) -> NDArray[np.int64]:
    numbers = _numbers(table, path, column)
    _refuse(table, path, column, ~((numbers >= 0) & (numbers % 1 == 0)), "is not a count of rows")
    return numbers.astype(np.int64)


def _nanoseconds(table: pd.DataFrame, path: Path, column: str) -> NDArray[np.int64]:
    """Parse times: epoch seconds as numbers, or ISO 8601 text (default: UTC)."""
    times = table[column]
    _refuse(table, path, column, times.isna().to_numpy(), "is not a time")
    if not pd.api.types.is_numeric_dtype(times):
        parsed = pd.to_datetime(times, utc=True, format="ISO8601", errors="coerce")
        _refuse(
            table, path, column, parsed.isna().to_numpy(), "is not ISO 8601, such as 2024-05-01T12:00:00Z"
        )
        return pd.DatetimeIndex(parsed).as_unit("ns").asi8
    seconds = times.to_numpy(np.float64)
    _refuse(
        table,
        path,
        column,
        ~(np.abs(seconds) < _LAST_SECOND),
        "is not in epoch seconds; divide milliseconds by 1,000",
    )
    whole = pd.api.types.is_integer_dtype(times)
    return times.to_numpy(np.int64) * 1_000_000_000 if whole else np.round(seconds * 1e9).astype(np.int64)


def _refuse(table: pd.DataFrame, path: Path, column: str, wrong: NDArray[np.bool_], what: str) -> None:
    """Raise an InputError that names the first invalid cell, by its line in the file."""
    if wrong.any():
        row = int(np.argmax(wrong))
        cell = table[column].iloc[row]
        shown = "an empty field" if pd.isna(cell) else repr(cell) if isinstance(cell, str) else f"{cell}"
        raise InputError(
            f"{path}: line {row + 2}, column {column}: {shown} {what} ({int(wrong.sum()):,} of "
            f"{len(wrong):,} rows)"
        )
