"""Sources of the readout's hidden features: shared LSTM, or network of the stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats, Ints
from detectors.forecasters.frozen_network import FrozenNetwork
from detectors.forecasters.lstm_features import FeatureRows
from detectors.forecasters.per_group_lstm import GroupNetworks
from detectors.forecasters.shared_lstm_numba import HIDDEN, FrozenLSTM
from detectors.row_product import row_product

#: Bound of a hidden feature. Those of gated kinds are within ±1.
MAX_ABS_HIDDEN = 50.0
_PREFIX = "hidden."


class HiddenSource(Protocol):
    """A recurrent network that makes features of the readout."""

    #: Changes with name, dtype, shape or meaning of any array of ``initial``; "" for the shared LSTM.
    state_form: str

    def initial(self, slots: int) -> State:
        """Return the state of ``slots`` channel slots; all names begin with "hidden."."""
        ...

    def features(self, state: State, batch: ChannelBatch, rows: FeatureRows) -> Floats:
        """Advance the state in place and return the features of each row (M, mixtures)."""
        ...

    def on_weights_changed(self, state: State) -> None:
        """Reset, in place, what depends on the weights."""
        ...

    def register_series(self, state: State, slots: Ints, names: Iterable[str]) -> None:
        """Assign rows of the state to series."""
        ...


class SharedLstmSource:
    """Mixtures of the hidden state of the shared LSTM, or of the LSTM of a group.

    State per channel slot: h and c in 16 bits a number, and the number of its network (0: the shared one).
    """

    state_form = ""

    def __init__(self, net: FrozenLSTM, own: GroupNetworks | None, mixtures: int) -> None:
        """Prepare ``mixtures`` features."""
        self.net, self.own = net, own
        self.rotation = random_rotation(HIDDEN, mixtures)

    def initial(self, slots: int) -> State:
        """Return the state of ``slots`` channel slots."""
        hidden = {f"hidden.{name}": np.zeros((slots, HIDDEN), np.int16) for name in "hc"}
        return hidden | {"hidden.own": np.zeros(slots, np.int32)}

    def features(self, state: State, batch: ChannelBatch, rows: FeatureRows) -> Floats:
        """Return the mixtures (M, mixtures) after each row."""
        h = self._hidden(state, batch.slot, rows.features)
        return h if self.rotation is None else row_product(h, self.rotation)

    def on_weights_changed(self, state: State) -> None:
        """Forget the network of each slot; h and c stay."""
        state["hidden.own"][...] = 0

    def register_series(self, state: State, slots: Ints, names: Iterable[str]) -> None:
        """Assign the network of its group to each of the series."""
        if self.own is not None:
            state["hidden.own"][slots] = self.own.of_series(names)[:, None]

    def _hidden(self, state: State, slot: Ints, inputs: Floats) -> Floats:
        """Return the hidden state after each row (M, H).

        One call is for the shared LSTM, one for all others.
        """
        h, c = state["hidden.h"], state["hidden.c"]
        if self.own is None:
            return self.net.run(inputs, slot, h, c)
        network, out = state["hidden.own"][slot], np.empty((len(slot), HIDDEN), np.float32)
        shared = np.flatnonzero(network == 0)
        if len(shared):
            out[shared] = self.net.run(inputs[shared], slot[shared], h, c)
        self.own.run(network, inputs, slot, h, c, out)
        return out


class NetworkSource:
    """The forecasts of the network of a stream, and mixtures of its hidden vector.

    State per channel slot: see ``FrozenNetwork.initial``.
    """

    def __init__(self, net: FrozenNetwork, mixtures: int) -> None:
        """Prepare ``mixtures`` features."""
        self.net, self.mixtures = net, mixtures
        width = min(net.spec.width, mixtures - len(net.horizons))
        self.rotation = random_rotation(net.spec.width, width)
        shapes = [f"{name}{list(array.shape[1:])}" for name, array in net.initial(0).items()]
        zone = f"@{net.spec.zone}" if net.calendar.lags else ""
        self.state_form = f"{net.spec.kind}-{','.join(shapes)}{zone}".replace(" ", "")

    def initial(self, slots: int) -> State:
        """Return the state of ``slots`` channel slots."""
        return {f"{_PREFIX}{name}": array for name, array in self.net.initial(slots).items()}

    def features(self, state: State, batch: ChannelBatch, rows: FeatureRows) -> Floats:
        """Return the forecasts, then the mixtures (M, mixtures) after each row."""
        own = self._own(state)
        inputs = self.net.calendar.advance(own, batch.slot, (batch.time, batch.every), batch.x, rows)
        hidden = self.net.run(inputs, batch.slot, own)
        mixed = hidden if self.rotation is None else row_product(hidden, self.rotation)
        out = np.zeros((len(batch), self.mixtures), np.float32)
        steps = len(self.net.horizons)
        out[:, :steps] = self.net.locations(hidden, inputs, rows)
        out[:, steps : steps + mixed.shape[1]] = np.clip(mixed, -MAX_ABS_HIDDEN, MAX_ABS_HIDDEN)
        return out

    def on_weights_changed(self, state: State) -> None:
        """Reset the state of the network."""
        self.net.forget(self._own(state))

    def register_series(self, state: State, slots: Ints, names: Iterable[str]) -> None:
        """Do nothing: all series have the same network."""

    def _own(self, state: State) -> State:
        return {
            name.removeprefix(_PREFIX): array for name, array in state.items() if name.startswith(_PREFIX)
        }


def random_rotation(width: int, reduced: int) -> Floats | None:
    """Return a fixed projection (width, reduced), None if nothing is reduced.

    The moments of the readout grow with the square of its inputs, so that fewer inputs save memory and time.
    Source: Johnson & Lindenstrauss 1984.
    """
    if reduced == width:
        return None
    square = np.random.default_rng(0).normal(size=(width, reduced))
    return np.ascontiguousarray(np.linalg.qr(square)[0] * np.sqrt(width / reduced), np.float32)
