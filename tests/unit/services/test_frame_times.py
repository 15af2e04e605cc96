"""Event times of frames: the unit of numbers, in every function that reads times."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from forewatch import Detector, InputError, detect, fit_events, plot
from pipeline.services.frame_times import frame_times

NOW = 1_700_000_000


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([NOW, None], dtype="Int64"),
        pd.Series([NOW, None], dtype=object),
        pd.Series([np.int64(NOW), np.nan], dtype=object),
        pd.Series([str(NOW), None], dtype=object),
        pd.Series([float(NOW), np.nan]),
        pd.Series(["2023-11-14T22:13:20Z", None]),
    ],
)
def test_seconds_are_seconds_in_columns_of_any_type(column):
    assert frame_times(column, "detect", "t").tolist() == [pd.Timestamp(NOW, unit="s", tz="UTC"), pd.NaT]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 3]),
        pd.Series([1, None, 3], dtype=object),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([0.5, 1.5, 2.5]),
        pd.Series(["1", "2", "3"]),
    ],
)
def test_every_function_refuses_numbers_that_are_no_times(column):
    rows = pd.DataFrame({"t": column, "v": [1.0, 2.0, 3.0], "e": ["a", "b", "c"]})
    functions = {
        "detect": lambda: detect(rows, time="t", values="v", detector="light"),
        "Detector": lambda: Detector(["v"], time="t", detector="light").fit(rows),
        "plot": lambda: plot(rows, rows, time="t", values="v"),
        "fit_events": lambda: fit_events(rows.iloc[[0, 2]], event="e", time="t", idle="1min"),
    }
    for call in functions.values():
        with pytest.raises(InputError, match="no epoch after 1990"):
            call()


def test_true_is_no_time():
    with pytest.raises(InputError, match="holds bool, not times"):
        frame_times(pd.Series([True, False]), "detect", "t")
