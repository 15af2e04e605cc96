"""The LSTM forecast: causal inputs, the shared LSTM with fixed weights, and a readout per channel slot.

The readout works on mixtures of the hidden state h_t, the lagged differences x_(t−l) − x_t for l = 1…L, the
scaled value z_t, and 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats, Ints
from detectors.composite.tiers import Tier
from detectors.forecasters import lstm_features
from detectors.forecasters.per_group_lstm import GroupNetworks
from detectors.forecasters.shared_lstm_numba import HIDDEN, FrozenLSTM
from detectors.row_product import row_product
from detectors.stages.ridge_readout import RidgeReadout
from detectors.stages.robust_scale import COL_ANCHOR, MAX_ABS_DIFFERENCE

MAX_ABS_LEVEL_SCALES = 20.0


class LstmForecast:
    """The forecast of each channel slot.

    State per channel slot: the memory of the inputs, h and c, the number of its network (0: the shared one), and
    the D · (D + 1) / 2 moments of the readout.
    """

    def __init__(self, net: FrozenLSTM, own: GroupNetworks | None, tier: Tier) -> None:
        self.net, self.own = net, own
        self.lags, self.memory, self.hidden = tier.lags, tier.input_memory_rows, tier.readout_mixtures
        self.rotation = random_rotation(HIDDEN, tier.readout_mixtures)
        self.readout = RidgeReadout(
            tier.readout_mixtures + tier.lags + 2, tier.horizons, tier.error_span_periods
        )
        self.tracks = self.readout.tracks

    def initial(self, slots: int) -> State:
        inputs = {
            f"inputs.{name}": array for name, array in lstm_features.initial(slots, self.memory).items()
        }
        hidden = {f"hidden.{name}": np.zeros((slots, HIDDEN), np.float32) for name in "hc"}
        return inputs | hidden | {"hidden.own": np.zeros(slots, np.int32)} | self.readout.initial(slots)

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> Floats:
        """Write the errors to ``out`` (M, tracks); return the forecast of v (M,), NaN where there is none."""
        own = {
            name.removeprefix("inputs."): array for name, array in state.items() if name.startswith("inputs.")
        }
        inputs = lstm_features.advance(own, batch.slot, batch.x, batch.missed, self.lags)
        h = self._hidden(state, batch.slot, inputs.features)
        h = h if self.rotation is None else row_product(h, self.rotation)
        level = np.clip(np.nan_to_num(batch.z), -MAX_ABS_LEVEL_SCALES, MAX_ABS_LEVEL_SCALES)[:, None]
        phi = np.concatenate([h, inputs.tail, level, np.ones_like(level)], axis=1)
        expected = self.readout.run(state, batch, inputs.unit, phi, out)
        anchor = state["scale.moments"][batch.slot, COL_ANCHOR]
        return np.clip(expected - anchor, -MAX_ABS_DIFFERENCE, MAX_ABS_DIFFERENCE).astype(np.float32)

    def on_weights_changed(self, state: State) -> None:
        """Reset what depends on the weights: the moments of the hidden state, and the network of each slot.

        The moments of lags and level stay.
        """
        self.readout.forget(state, self.hidden)
        state["hidden.own"][...] = 0

    def register_series(self, state: State, slots: Ints, names: Iterable[str]) -> None:
        """Assign the network of its group to each of the series."""
        if self.own is not None:
            state["hidden.own"][slots] = self.own.of_series(names)[:, None]

    def _hidden(self, state: State, slot: Ints, inputs: Floats) -> Floats:
        """Return the hidden state after each row (M, H); one call for the shared LSTM, one for all others."""
        h, c = state["hidden.h"], state["hidden.c"]
        if self.own is None:
            return self.net.run(inputs, slot, h, c)
        network, out = state["hidden.own"][slot], np.empty((len(slot), HIDDEN), np.float32)
        shared = np.flatnonzero(network == 0)
        if len(shared):
            out[shared] = self.net.run(inputs[shared], slot[shared], h, c)
        self.own.run(network, inputs, slot, h, c, out)
        return out


def random_rotation(width: int, reduced: int) -> Floats | None:
    """Return a fixed random projection (width, reduced), or None if nothing is reduced.

    The moments of the readout grow with the square of its inputs, so that fewer inputs save memory and time.
    Source: Johnson & Lindenstrauss 1984.
    """
    if reduced == width:
        return None
    square = np.random.default_rng(0).normal(size=(width, reduced))
    return np.ascontiguousarray(np.linalg.qr(square)[0] * np.sqrt(width / reduced), np.float32)
