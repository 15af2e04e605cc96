# ruff: noqa: ANN001
"""Per-group LSTMs beside the LSTM that the other series share.

The tensors of a version are those of the shared LSTM and, if there are per-group LSTMs, also ``NAMES``: the
network of each series, and the stacked recurrent weights. Live, the readout of a series takes the place of
the head, which exists in training only. The live step is one compiled pass over the rows of a batch, each
with the weights of its own slot. It needs no padding, and its numbers do not depend on how the points are cut
into batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.channel_batch import Floats, Ints
from detectors.forecasters.hidden_state import is_rounded, pack_states, round_states, unpack_states
from detectors.jit import kernel, sigmoid, tanh

PREFIX: Final = "own."
NAMES: Final = ("own.series", "own.network", "own.input", "own.hidden", "own.bias")

Arrays = dict[str, NDArray[Any]]


@dataclass(slots=True)
class GroupNetworks:
    """K per-group LSTMs.

    ``network``: number 1 … K by name of the series; weights (K, F + H, 4H) and bias (K, 4H), gates in
    PyTorch's order.
    """

    network: dict[str, int]
    weights: Floats
    bias: Floats

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> GroupNetworks | None:
        """Read what ``tensors`` made; return None if only the shared LSTM is there.

        Raises ValueError if the tensors are not whole.
        """
        if NAMES[0] not in arrays:
            return None
        both = np.concatenate([arrays["own.input"], arrays["own.hidden"]], axis=2)
        weights, bias = both.transpose(0, 2, 1), arrays["own.bias"]
        return cls(
            networks(arrays),
            np.ascontiguousarray(weights, np.float32),
            np.ascontiguousarray(bias, np.float32),
        )

    def of_series(self, names: Iterable[str]) -> Ints:
        """Return the network of each series (N,), 0 for the shared one."""
        return np.array([self.network.get(name, 0) for name in names], np.int32)

    def run(
        self, network: Ints, features: Floats, slot: Ints, h: NDArray[Any], c: NDArray[Any], out: Floats
    ) -> None:
        """Advance the rows that have a per-group LSTM.

        Args:
            network: number of the network of each row (M,), 0 for the shared LSTM.
            features: inputs (M, F).
            slot: channel slot of each row (M,).
            h: hidden states (slots, H), changed in place; int16 as in ``hidden_state``, or float32.
            c: cell states (slots, H), changed in place.
            out: receives the new hidden state of each advanced row (M, H).
        """
        mine = np.flatnonzero(network)
        used, place = np.unique(slot[mine], return_inverse=True)
        last_h, last_c = unpack_states(h[used], c[used])
        rounded, found = is_rounded(h), np.empty((len(mine), h.shape[1]), np.float32)
        rows = (network[mine], features[mine], place)
        _advance_rows(self.weights, self.bias, rows, (last_h, last_c, rounded), found)
        h[used], c[used] = pack_states(last_h, last_c) if rounded else (last_h, last_c)
        out[mine] = found


def tensors(members: Sequence[Sequence[str]], weights: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the tensors of K networks: the series of each, and stacked state dicts.

    Return {} without networks. The names in ``weights`` are those of SharedLSTM.
    """
    if not members:
        return {}
    names = [name for mine in members for name in mine]
    return {
        "own.series": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "own.network": np.repeat(np.arange(len(members), dtype=np.int32), [len(mine) for mine in members]),
        "own.input": weights["lstm.weight_ih_l0"],
        "own.hidden": weights["lstm.weight_hh_l0"],
        "own.bias": weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"],
    }


def without(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return only the tensors of the shared LSTM."""
    return {name: value for name, value in arrays.items() if not name.startswith(PREFIX)}


def networks(arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return the network, 1 … K, of each series that has one.

    Raises ValueError if ``tensors`` did not make the arrays.
    """
    if NAMES[0] not in arrays:
        return {}
    series, number, count = (
        json.loads(arrays["own.series"].tobytes()),
        arrays["own.network"],
        len(arrays["own.input"]),
    )
    if not (
        isinstance(series, list)
        and all(isinstance(name, str) for name in series)
        and number.shape == (len(series),)
    ):
        raise ValueError("own.series does not name a series for each of own.network")
    if len(number) and not (number.dtype == np.int32 and number.min() >= 0 and number.max() < count):
        raise ValueError(f"own.network names a network that is not among the {count} that there are")
    return dict(zip(series, (number + 1).tolist(), strict=True))


def members(arrays: Mapping[str, NDArray[Any]]) -> list[list[str]]:
    """Return the series of each network."""
    found: list[list[str]] = [[] for _ in arrays.get("own.input", ())]
    for name, number in networks(arrays).items():
        found[number - 1].append(name)
    return found


def shapes(arrays: Mapping[str, NDArray[Any]], inputs: int, hidden: int) -> dict[str, list[int]]:
    """Return the required shapes of the per-group tensors among ``arrays``."""
    if not any(name.startswith(PREFIX) for name in arrays):
        return {}
    count = {
        name: len(arrays[name]) if name in arrays and arrays[name].ndim else 0
        for name in ("own.series", "own.network", "own.input")
    }
    k = count["own.input"]
    own = [
        [count["own.series"]],
        [count["own.network"]],
        [k, 4 * hidden, inputs],
        [k, 4 * hidden, hidden],
        [k, 4 * hidden],
    ]
    return dict(zip(NAMES, own, strict=True))


@kernel
def _advance_rows(weights, bias, rows, state, out):  # type: ignore[no-untyped-def]
    """Advance rows that have a network; see ``GroupNetworks.run``."""
    (network, features, slot), (h, c, rounded) = rows, state
    inputs, size = features.shape[1], h.shape[1]
    gate = np.empty(4 * size, np.float32)
    for i in range(len(slot)):
        k, row = network[i] - 1, slot[i]
        gate[:] = bias[k]
        _add_product(gate, features[i], weights[k, :inputs])
        _add_product(gate, h[row], weights[k, inputs:])
        for j in range(size):
            c[row, j] = sigmoid(gate[size + j]) * c[row, j] + sigmoid(gate[j]) * tanh(gate[2 * size + j])
        for j in range(size):
            h[row, j] = sigmoid(gate[3 * size + j]) * tanh(c[row, j])
        if rounded:
            round_states(h[row], c[row])
        out[i] = h[row]


@kernel
def _add_product(gate, x, weights):  # type: ignore[no-untyped-def]
    """Add ``x @ weights`` to ``gate``.

    Two rows at a time, so that the sum is read and written half as often.
    """
    for j in range(0, len(x) - 1, 2):
        for g in range(len(gate)):
            gate[g] += x[j] * weights[j, g] + x[j + 1] * weights[j + 1, g]
    if len(x) % 2:
        for g in range(len(gate)):
            gate[g] += x[-1] * weights[-1, g]
