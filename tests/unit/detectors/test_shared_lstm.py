"""The shared LSTM and its inputs: causal, independent of batches, unbreakable, and better than what it mixes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.forecasters import lstm_features, shared_lstm, shared_lstm_numba
from detectors.forecasters.ar_expert import AR_REGRESSORS
from detectors.training import pretrain, synthetic_series


def one_by_one(values: np.ndarray, memory: int = 128, tail: int = 4) -> lstm_features.FeatureRows:
    """All points of one series in a single batch."""
    n = len(values)
    return lstm_features.advance(
        lstm_features.initial(1, memory), np.zeros(n, np.int32), values, np.zeros(n, np.int32), tail
    )


def test_inputs_do_not_see_the_future() -> None:
    values = synthetic_series.batch(1, 1, 600)[0]
    changed = values.copy()
    changed[400:] = 1e6 * np.sin(np.arange(200))
    before, after = one_by_one(values), one_by_one(changed)
    np.testing.assert_array_equal(before.features[:400], after.features[:400])
    np.testing.assert_array_equal(before.tail[:400], after.tail[:400])
    assert not np.array_equal(before.features[400:], after.features[400:])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 80), min_size=1, max_size=12))
def test_inputs_do_not_depend_on_how_points_are_cut_into_batches(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    series = synthetic_series.batch(seed, 3, 150)
    slot = np.repeat(np.arange(3, dtype=np.int32), 150)
    rng.shuffle(slot)  # slots interleave, each in its own order
    at = np.zeros(3, int)
    values = np.empty(450)
    for i, s in enumerate(slot):
        values[i] = series[s, at[s]]
        at[s] += 1
    missed = rng.choice([0, 0, 0, 2], 450).astype(np.int32)
    whole = lstm_features.advance(lstm_features.initial(3, 64), slot, values, missed)
    state, parts, start = lstm_features.initial(3, 64), [], 0
    for size in [*cuts, 450]:
        part = slice(start, min(450, start + size))
        parts.append(lstm_features.advance(state, slot[part], values[part], missed[part]).features)
        start += size
    np.testing.assert_array_equal(whole.features, np.concatenate(parts)[:450])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=True, allow_infinity=True),
            st.sampled_from([0.0, 1.0, 1e-300, -1e300, 5e-324]),
        ),
        min_size=1,
        max_size=120,
    )
)
def test_no_value_breaks_the_inputs(values: list[float]) -> None:
    out = one_by_one(np.array(values), memory=64)
    assert np.isfinite(out.features).all()
    assert np.abs(out.features).max() < 20
    assert np.isfinite(out.tail).all()


def test_units_do_not_matter() -> None:
    x = np.sin(np.arange(500) / 5) + 0.1 * np.random.default_rng(0).normal(size=500)
    np.testing.assert_allclose(one_by_one(x).features, one_by_one(1e4 * x + 7e5).features, atol=2e-3)


@pytest.mark.parametrize("period", [4, 7, 24, 60])
def test_the_period_is_found(period: int) -> None:
    rng = np.random.default_rng(period)
    x = rng.normal(size=period)[np.arange(8 * period + 100) % period] + 0.1 * rng.normal(
        size=8 * period + 100
    )
    assert one_by_one(x).period[-1] == period


def test_noise_and_walks_have_no_period() -> None:
    rng = np.random.default_rng(4)
    found = [
        one_by_one(x).period[-1] > 0
        for x in [*rng.normal(size=(20, 600)), *rng.normal(size=(20, 600)).cumsum(1)]
    ]
    assert np.mean(found) < 0.15


def test_a_series_begins_with_its_first_value() -> None:
    out = one_by_one(np.array([np.nan, np.nan, 5.0, 6.0]))
    assert np.isnan(out.last[:2]).all()
    np.testing.assert_array_equal(out.last[2:], [5.0, 6.0])
    np.testing.assert_array_equal(one_by_one(np.array([5.0, 6.0])).features, out.features[2:])


def test_a_missed_point_keeps_the_phase() -> None:
    x = np.tile(np.arange(10.0) ** 2, 30)
    state = lstm_features.initial(1, 128)
    lstm_features.advance(state, np.zeros(200, np.int32), x[:200], np.zeros(200, np.int32))
    out = lstm_features.advance(state, np.zeros(1, np.int32), x[207:208], np.array([7], np.int32))
    ahead = out.last + out.unit * np.sinh(out.features[:, lstm_features.SEASON_NEXT])
    np.testing.assert_allclose(ahead, x[208], atol=1e-3)


def test_the_inputs_stay_sound_over_a_long_stream() -> None:
    rng = np.random.default_rng(9)
    x = np.concatenate(
        [
            np.zeros(5000),
            rng.normal(size=50_000).cumsum(),
            np.full(20_000, 3.3),
            1e9 + rng.normal(size=100_000),
        ]
    )
    state = lstm_features.initial(1, 64)
    out = lstm_features.advance(state, np.zeros(len(x), np.int32), x, np.zeros(len(x), np.int32))
    assert np.isfinite(out.features).all()
    covariance = np.zeros((AR_REGRESSORS,) * 2)
    covariance[np.tril_indices(AR_REGRESSORS)] = state["covariance"][0]  # the half that eigvalsh reads
    assert np.linalg.eigvalsh(covariance).min() > -1e-4
    white = out.last[-50_000:-1] + out.unit[-50_000:-1] * np.sinh(
        out.features[-50_000:-1, lstm_features.AR_NEXT]
    )
    # it has learnt to expect the mean: 1/√2
    assert np.abs(white - x[-49_999:]).mean() < 0.82 * np.abs(np.diff(x[-50_000:])).mean()


def test_a_batch_equals_its_series_one_by_one_in_torch() -> None:
    module, net = shared_lstm.load(), shared_lstm_numba.FrozenLSTM(shared_lstm_numba.read())
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, lstm_features.FEATURES)).astype(np.float32)
    slot = rng.integers(0, 7, 300).astype(np.int32)
    h, c = (np.zeros((9, shared_lstm_numba.HIDDEN), np.float32) for _ in range(2))
    together = np.concatenate(
        [net.run(inputs[:100], slot[:100], h, c), net.run(inputs[100:], slot[100:], h, c)]
    )
    for s in range(7):
        alone = module.lstm(torch.from_numpy(inputs[slot == s])[:, None])[0][:, 0]
        np.testing.assert_allclose(together[slot == s], alone.numpy(), atol=2e-6)
        np.testing.assert_allclose(h[s], alone[-1].numpy(), atol=2e-6)
    assert not h[7:].any()


def test_states_of_16_bits_stay_near_and_do_not_depend_on_batches() -> None:
    net = shared_lstm_numba.FrozenLSTM(shared_lstm_numba.read())
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3_000, lstm_features.FEATURES)).astype(np.float32)
    slot = rng.integers(0, 7, 3_000).astype(np.int32)

    def run(kind: type, cuts: int) -> tuple[np.ndarray, np.ndarray]:
        h, c = (np.zeros((7, shared_lstm_numba.HIDDEN), kind) for _ in range(2))
        parts = np.array_split(np.arange(len(slot)), cuts)
        return np.concatenate([net.run(inputs[part], slot[part], h, c) for part in parts]), c

    (whole, cell), (cut, cell_cut), (exact, _) = run(np.int16, 1), run(np.int16, 41), run(np.float32, 1)
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(cell, cell_cut)
    np.testing.assert_allclose(whole, exact, atol=5e-3)
    assert np.abs(cell).max() < 32_000, "no cell state is clipped"


def test_the_packaged_net_beats_naive_season_and_ar_on_series_it_never_saw() -> None:
    data = pretrain.make_round(synthetic_series.batch((99, pretrain.FIRST_HELD_OUT_ROUND), 96, 700))
    with torch.no_grad():
        location, _, _, _ = shared_lstm.load()(data.inputs)
    season = data.inputs[..., [lstm_features.SEASON_NEXT, lstm_features.SEASON_LATER]].sinh()
    ar = data.inputs[..., [lstm_features.AR_NEXT, lstm_features.AR_LATER]].sinh()

    def error(forecast: torch.Tensor) -> np.ndarray:
        """Mean over series of the error at 200–700 points of history, relative to the naive one, for each
        horizon.
        """
        size = (data.target - forecast).abs()[200:].nanmean(0)
        naive = data.target.abs()[200:].nanmean(0)
        return (size / naive).clamp(max=10)[naive[:, 0] > 1e-3].mean(0).numpy()

    net = error(location)
    assert (net < 0.75).all(), net
    assert (net < error(season)).all()
    assert (net < error(ar)).all()


def test_pretraining_lowers_the_loss_and_goes_on_from_its_checkpoint(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pretrain, "SERIES_LENGTHS", (128,))
    monkeypatch.setattr(pretrain, "CHUNK_ROWS", 64)
    monkeypatch.setattr(pretrain, "ROUNDS_BETWEEN_CHECKPOINTS", 4)
    recipe = pretrain.Recipe(seed=1, rounds=12, series=16)
    whole, result = pretrain.train(recipe, str(tmp_path / "whole"))
    first, _ = pretrain.train(pretrain.Recipe(seed=1, rounds=1, series=16), str(tmp_path / "first"))
    data = pretrain.make_round(synthetic_series.batch(77, 32, 128))

    def loss(module: shared_lstm.SharedLSTM) -> float:
        location, log_scale, _, _ = module(data.inputs)
        return float(pretrain.loss_of(module, location, log_scale, data.target).detach())

    assert loss(whole) < loss(first)
    assert result["gradient"]["exploding"] == 0
    real = pretrain.train_round
    done = []

    def killed(*arguments: object) -> float:
        done.append(1)
        if len(done) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pretrain, "train_round", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain.train(recipe, str(tmp_path / "again"))
    again, _ = pretrain.train(recipe, str(tmp_path / "again"))
    assert len(done) == 7 + 8
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
