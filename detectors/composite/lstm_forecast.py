"""The network's forecast: causal inputs, fixed recurrent network, readout per slot.

The network is the shared LSTM, or that of the stream. The readout works on mixtures of its hidden state h_t,
the lagged differences x_(t−l) − x_t for l = 1…L, the scaled value z_t, and 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats, Ints
from detectors.composite.hidden_sources import HiddenSource
from detectors.composite.tiers import Tier
from detectors.forecasters import lstm_features
from detectors.stages.ridge_readout import RidgeReadout
from detectors.stages.robust_scale import COL_ANCHOR, MAX_ABS_DIFFERENCE

MAX_ABS_LEVEL_SCALES = 20.0


class LstmForecast:
    """The forecast of each channel slot.

    State per channel slot: the memory of the inputs, that of the network, and the D · (D + 1) / 2 moments of
    the readout.
    """

    def __init__(self, source: HiddenSource, tier: Tier) -> None:
        """Prepare the readout of a tier over ``source``."""
        self.source = source
        self.lags, self.memory, self.hidden = tier.lags, tier.input_memory_rows, tier.readout_mixtures
        self.readout = RidgeReadout(
            tier.readout_mixtures + tier.lags + 2, tier.horizons, tier.error_span_periods
        )
        self.tracks = self.readout.tracks

    def initial(self, slots: int) -> State:
        """Return the state of ``slots`` channel slots."""
        inputs = {
            f"inputs.{name}": array for name, array in lstm_features.initial(slots, self.memory).items()
        }
        return inputs | self.source.initial(slots) | self.readout.initial(slots)

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> Floats:
        """Write the errors to ``out`` (M, tracks); return the forecast of v (M,), NaN where there is none."""
        own = {
            name.removeprefix("inputs."): array for name, array in state.items() if name.startswith("inputs.")
        }
        inputs = lstm_features.advance(own, batch.slot, batch.x, batch.missed, self.lags)
        h = self.source.features(state, batch, inputs)
        level = np.clip(np.nan_to_num(batch.z), -MAX_ABS_LEVEL_SCALES, MAX_ABS_LEVEL_SCALES)[:, None]
        phi = np.concatenate([h, inputs.tail, level, np.ones_like(level)], axis=1)
        expected = self.readout.run(state, batch, inputs.unit, phi, out)
        anchor = state["scale.moments"][batch.slot, COL_ANCHOR]
        return np.clip(expected - anchor, -MAX_ABS_DIFFERENCE, MAX_ABS_DIFFERENCE).astype(np.float32)

    def on_weights_changed(self, state: State) -> None:
        """Reset the moments of the hidden state, and the state of the network.

        The moments of lags and level stay.
        """
        self.readout.forget(state, self.hidden)
        self.source.on_weights_changed(state)

    def register_series(self, state: State, slots: Ints, names: Iterable[str]) -> None:
        """Assign the network of its group to each of the series."""
        self.source.register_series(state, slots, names)
