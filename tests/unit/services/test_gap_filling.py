"""Filled gaps of frames and of a backfill: rows, values, files and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from forewatch import InputError, fill_gaps
from pipeline.cli.app import app
from pipeline.services.gap_filling import MAX_GAP_ROWS

BEGIN = pd.Timestamp("2026-01-05", tz="UTC")
ROWS = 400
#: Rows that are missing in the frame, and rows without a value.
MISSING, EMPTY = slice(100, 112), slice(200, 203)


def frame_of(name: str, phase: float) -> pd.DataFrame:
    rng, t = np.random.default_rng(1), np.arange(ROWS)
    values = 20 + 5 * np.sin(2 * np.pi * t / 24 + phase) + rng.normal(0, 0.1, ROWS)
    return pd.DataFrame({"ts": BEGIN + pd.to_timedelta(t, unit="min"), "sensor": name, "temp": values})


def holed(frame: pd.DataFrame) -> pd.DataFrame:
    out = frame.copy()
    out.loc[out.index[EMPTY], "temp"] = np.nan
    return out.drop(out.index[MISSING])


@pytest.fixture(scope="module")
def whole() -> dict[str, pd.DataFrame]:
    return {"a": frame_of("a", 0.0), "b": frame_of("b", 1.0)}


@pytest.fixture(scope="module")
def table(whole: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the holed rows of both series, in no order."""
    return pd.concat([holed(one) for one in whole.values()]).sample(frac=1.0, random_state=0)


def check(found: pd.DataFrame, whole: dict[str, pd.DataFrame], stamp: str) -> None:
    for name, one in whole.items():
        rows = found[found["series"] == name].reset_index(drop=True)
        assert pd.to_datetime(rows[stamp], utc=True).tolist() == one["ts"].tolist(), (
            "each row that is missing"
        )
        gaps = np.zeros(ROWS, np.bool_)
        gaps[MISSING] = gaps[EMPTY] = True
        assert (rows["filled"].to_numpy() == gaps).all()
        truth = one["temp"].to_numpy()
        np.testing.assert_array_equal(rows["value"].to_numpy()[~gaps], truth[~gaps])
        line = np.interp(np.arange(ROWS), np.flatnonzero(~gaps), truth[~gaps])
        error = np.abs(rows["value"].to_numpy() - truth)[gaps].mean()
        assert error < 0.5 * np.abs(line - truth)[gaps].mean()
        assert set(rows["method"]) <= {"network", "season", "line"}
        assert np.abs(rows["smoothed"].to_numpy() - truth).mean() < 0.3


def test_a_frame_gets_the_rows_and_the_values_that_it_lacks(whole, table):
    found = fill_gaps(table, time="ts", values="temp", series="sensor")
    check(found, whole, "time")


def test_a_backfill_writes_filled_series(tmp_path: Path, whole, table):
    table.sort_values("ts").to_csv(tmp_path / "past.csv", index=False)
    (tmp_path / "forewatch.yaml").write_text(
        f"database: sqlite:///{tmp_path}/forewatch.db\nhttp: null\nstreams:\n  plant:\n"
        f"    source: {{files: {{paths: [{tmp_path}/past.csv]}}}}\n"
        "    format: {csv: {series: sensor, time: ts, values: [temp]}}\n    every: 1m\n    detector: light\n"
    )
    command = ["backfill", str(tmp_path / "forewatch.yaml"), "--stream", "plant", "--filled"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "filled.csv")])
    assert done.exit_code == 0, done.output
    gaps = 2 * (MISSING.stop - MISSING.start + EMPTY.stop - EMPTY.start)
    assert [line.split() for line in done.stdout.splitlines() if "filled" in line] == [
        ["filled", str(gaps)],
        ["not_filled", "0"],
    ]
    check(pd.read_csv(tmp_path / "filled.csv"), whole, "timestamp")
    for more, words in (
        ([str(tmp_path / "filled.txt")], "must end in .csv or .parquet"),
        ([str(tmp_path / "filled.csv"), "--plan"], "leave out --cluster and --plan"),
        ([str(tmp_path / "past.csv")], "this file is read"),
        ([str(tmp_path / "none" / "filled.csv")], "there is no folder"),
    ):
        refused = CliRunner().invoke(app, [*command, *more])
        assert isinstance(refused.exception, InputError)
        assert words in str(refused.exception)


def test_long_gaps_and_ends_stay_empty():
    frame = frame_of("a", 0.0)
    late = frame.assign(ts=frame["ts"] + pd.Timedelta(minutes=ROWS + MAX_GAP_ROWS + 1))
    frame.loc[frame.index[:5], "temp"] = np.nan
    found = fill_gaps(pd.concat([frame, late]), time="ts", values="temp", series="sensor", every="1m")
    assert len(found) == 2 * ROWS, "a gap that is too long has no rows"
    assert found["value"].isna().to_numpy().nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert not found["filled"].any()


def test_a_frame_that_cannot_be_used_is_refused():
    with pytest.raises(InputError, match="the frame has no column pressure"):
        fill_gaps(frame_of("a", 0.0), time="ts", values="pressure")
    with pytest.raises(InputError, match="none of the 400 rows can be used"):
        fill_gaps(frame_of("a", 0.0), time="ts", values="sensor")
