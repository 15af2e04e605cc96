"""The forecaster: causal inputs → the shared, frozen LSTM → a readout per channel slot on [mixtures of h_t, x_(t−l) −
x_t for l = 1…L, z_t, 1].
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats, Ints
from detectors.composite.tiers import Tier
from detectors.forecasters import lstm_features
from detectors.forecasters.per_group_lstm import Own
from detectors.forecasters.shared_lstm_numba import HIDDEN, FrozenLSTM
from detectors.stages.ridge_readout import RidgeReadout
from detectors.stages.robust_scale import COL_ANCHOR, MAX_ABS_DIFFERENCE

LARGEST = 20.0


class Forecast:
    """State a channel slot: the inputs' memory, h and c, which network it has (0: the shared one), and the readout's
    D · (D + 1) / 2 moments.
    """

    def __init__(self, net: FrozenLSTM, own: Own | None, tier: Tier) -> None:
        self.net, self.own = net, own
        self.lags, self.memory, self.hidden = tier.lags, tier.memory, tier.hidden
        self.mixture = mixture(HIDDEN, tier.hidden)
        self.readout = RidgeReadout(tier.hidden + tier.lags + 2, tier.horizons, tier.spans)
        self.tracks = self.readout.tracks

    def initial(self, slots: int) -> State:
        inputs = {
            f"inputs.{name}": array for name, array in lstm_features.initial(slots, self.memory).items()
        }
        hidden = {f"hidden.{name}": np.zeros((slots, HIDDEN), np.float32) for name in "hc"}
        return inputs | hidden | {"hidden.own": np.zeros(slots, np.int32)} | self.readout.initial(slots)

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> Floats:
        """Errors into ``out`` (M, tracks); returns the forecast of v (M,), NaN while there is none."""
        own = {
            name.removeprefix("inputs."): array for name, array in state.items() if name.startswith("inputs.")
        }
        inputs = lstm_features.advance(own, batch.slot, batch.x, batch.missed, self.lags)
        h = self._hidden(state, batch.slot, inputs.features)
        h = h if self.mixture is None else h @ self.mixture
        level = np.clip(np.nan_to_num(batch.z), -LARGEST, LARGEST)[:, None]
        phi = np.concatenate([h, inputs.tail, level, np.ones_like(level)], axis=1)
        expected = self.readout.run(state, batch, inputs.unit, phi, out)
        anchor = state["scale.moments"][batch.slot, COL_ANCHOR]
        return np.clip(expected - anchor, -MAX_ABS_DIFFERENCE, MAX_ABS_DIFFERENCE).astype(np.float32)

    def on_weights_changed(self, state: State) -> None:
        """Other weights from here on.

        What the readout learnt of the net's hidden state is forgotten; of lags and level it stays.
        """
        self.readout.forget(state, self.hidden)
        state["hidden.own"][...] = 0

    def register_series(self, state: State, slots: Ints, names: Iterable[str]) -> None:
        """Series with a network of their own have it from here on."""
        if self.own is not None:
            state["hidden.own"][slots] = self.own.of_series(names)[:, None]

    def _hidden(self, state: State, slot: Ints, inputs: Floats) -> Floats:
        """The hidden state after each row (M, H): of the shared LSTM in one call, of the others in another."""
        h, c = state["hidden.h"], state["hidden.c"]
        if self.own is None:
            return self.net.run(inputs, slot, h, c)
        network, out = state["hidden.own"][slot], np.empty((len(slot), HIDDEN), np.float32)
        shared = np.flatnonzero(network == 0)
        if len(shared):
            out[shared] = self.net.run(inputs[shared], slot[shared], h, c)
        self.own.run(network, inputs, slot, h, c, out)
        return out


def mixture(width: int, wanted: int) -> Floats | None:
    """A fixed random rotation to fewer numbers (Johnson & Lindenstrauss 1984): the readout's moments grow
    with the square of its inputs.
    """
    if wanted == width:
        return None
    square = np.random.default_rng(0).normal(size=(width, wanted))
    return np.ascontiguousarray(np.linalg.qr(square)[0] * np.sqrt(width / wanted), np.float32)
