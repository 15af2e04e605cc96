"""Comparison of forecasters on the recorded values of a stream."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from detectors.forecasters import FORECASTER_REGISTRY
from detectors.training.recall import MAX_REMEMBERED
from pipeline.cli.app import app
from pipeline.core.errors import InputError
from pipeline.evaluate.forecaster_comparison import (
    MIN_POINTS,
    VARIANTS,
    compare_forecasters,
    matrix_of,
    recorded_values,
)
from pipeline.evaluate.stream_comparison import recall_of
from pipeline.training.dataset import TrainingData
from tests.integration.test_retraining_jobs import write_config
from tests.support.engines import Bench
from tests.support.events import stream_tree
from tests.support.trainings import config_of, henon, write_history


def waves(series: int, points: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    phase = np.arange(points)[None, :] / 7.0 + rng.uniform(0, 6, (series, 1))
    return np.sin(phase) + 0.05 * rng.standard_normal((series, points))


def recorded(lengths: list[int], channels: int = 1) -> TrainingData:
    n = sum(lengths)
    values = np.arange(n * channels, dtype=float).reshape(n, channels)
    return TrainingData(
        "plant",
        tuple("ab"[:channels]),
        [str(one) for one in range(len(lengths))],
        np.r_[0, np.cumsum(lengths)],
        np.arange(n),
        values,
        np.zeros(n, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, bool),
        np.arange(n) != n - 1,
        [],
    )


def test_every_kind_of_forecaster_is_compared():
    assert {kind for kind, _ in VARIANTS.values()} == set(FORECASTER_REGISTRY)


def test_a_recurrent_network_beats_the_naive_forecast_on_waves():
    found = compare_forecasters(waves(4, 240), ("gru", "bidirectional"), epochs=4)
    by_name = {one.forecaster: one for one in found}
    assert by_name["gru"].error < 1.0
    assert by_name["gru"].memory_steps > 1
    assert by_name["gru"].state_bytes > 0
    assert by_name["bidirectional"].step_us is None
    assert not by_name["bidirectional"].causal


@pytest.mark.parametrize(("values", "message"), [(np.ones((2, 300)), "no series can be trained on")])
def test_useless_input_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        compare_forecasters(values, ("gru",))
    with pytest.raises(InputError, match="there is no forecaster 'transformer'; there are seasonal_naive"):
        compare_forecasters(values, ("transformer",))


def test_rows_are_the_newest_values_of_long_series():
    data = recorded([MIN_POINTS, MIN_POINTS + 50, 10], channels=2)
    values = matrix_of(data, 10, 230)
    assert values.shape == (4, 230)
    assert np.isnan(values[0, : 230 - MIN_POINTS]).all()
    assert values[3, -1] == 2 * (2 * MIN_POINTS + 50) - 1
    assert len(matrix_of(data, 2, 230)) == 2


def test_events_and_short_histories_are_refused(tmp_path, sqlite_template):
    bench = Bench(tmp_path / "numbers", sqlite_template, [])
    with pytest.raises(InputError, match="no series has 200 recorded points"):
        recorded_values(bench.config, "plant")
    tree = bench.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    of_events = bench.config.model_validate(tree | {"streams": {"doors": stream_tree(None)}})
    with pytest.raises(InputError, match="has events"):
        recorded_values(of_events, "doors")
    bench.close()


def test_the_command_measures_networks_inside_the_detector(tmp_path, sqlite_template):
    """A network that was trained on a rule that the packaged LSTM does not know has the smaller error."""
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    config = config_of(f"sqlite:///{tmp_path}/forewatch.db", tmp_path)
    write_history(config, {f"press-{i}": henon(np.random.default_rng(i), 1.0, 900) for i in range(3)})
    file = str(write_config(config, tmp_path / "forewatch.yaml"))
    command = ["compare", file, "--stream", "plant", "--forecaster", "gru", "--epochs", "6"]
    command += ["--forecaster", "gru+calendar+lags"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    live = shown["in_stream"]
    assert live["gru"]["seasonal_error"] < live["shared_lstm"]["seasonal_error"]
    assert live["gru"]["state_bytes"] == 128
    assert live["gru+calendar+lags"]["state_bytes"] == 128 + 8 * 96 * 4 + 24
    assert [one["forecaster"] for one in shown["forecasters"]] == ["gru"]
    assert 0 <= live["gru"]["detection"] <= 1
    assert shown["unexplained_after_100_steps"] == {}


def test_recall_needs_a_memory():
    assert recall_of("feedforward") > MAX_REMEMBERED > recall_of("gru")
