"""Kernels of ``frozen_network``, over all series side by side.

Each sum has one order, which depends on neither the other rows nor their number.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.forecasters.network_spec import Activation
from detectors.forecasters.shared_lstm_numba import BLOCK_SERIES
from detectors.jit import kernel, sigmoid, tanh
from detectors.row_product import multiply_rows

_SIGMOID, _TANH, _RELU, _LEAKY_RELU, _ELU, _GELU = range(6)
ACTIVATION_NUMBERS: Final = {
    str(Activation.SIGMOID): _SIGMOID,
    str(Activation.TANH): _TANH,
    str(Activation.RELU): _RELU,
    str(Activation.LEAKY_RELU): _LEAKY_RELU,
    str(Activation.ELU): _ELU,
    str(Activation.GELU): _GELU,
}
LEAKY_SLOPE: Final = np.float32(0.01)
#: Bound of a recurrent state without one of its own, such as that of ReLU.
MAX_ABS_STATE: Final = np.float32(1e4)
MAX_COUNT_UNITS: Final = 1e6
GELU_SCALE: Final = np.float32(0.7978845608028654)  # √(2 / π)
GELU_CUBE: Final = np.float32(0.044715)
ONE: Final = np.float32(1)
HALF: Final = np.float32(0.5)


@kernel
def activation(x, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the activation with this number of ``ACTIVATION_NUMBERS`` at ``x``."""
    if number == _SIGMOID:
        return sigmoid(x)
    if number == _TANH:
        return tanh(x)
    if number == _RELU:
        return max(x, np.float32(0))
    if number == _LEAKY_RELU:
        return x if x > 0 else LEAKY_SLOPE * x
    if number == _ELU:  # e^x − 1 = 2 t / (1 − t) with t = tanh(x / 2)
        t = tanh(HALF * x)
        return x if x > 0 else (t + t) / (ONE - t)
    return HALF * x * (ONE + tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x)))


@kernel
def activate(x, number) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Replace each number of ``x`` (N, H) by its activation."""
    for i in range(len(x)):
        for k in range(x.shape[1]):
            x[i, k] = activation(x[i, k], number)


@kernel
def advance_rnn(drive, packed, layer, h, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Advance a plain recurrent layer.

    Args:
        drive: Products of the inputs with their bias (N, H).
        packed: Order and sizes of ``shared_lstm_numba.pack``.
        layer: Recurrent weights (H, H), and the number of the activation.
        h: Hidden states (B, H), the longest series first, changed in place.
        out: Filled with the hidden state after each point (N, H).
    """
    (order, sizes), (again, number) = packed, layer
    width = h.shape[1]
    seen, raw = np.empty((BLOCK_SERIES, width), np.float32), np.empty((BLOCK_SERIES, width), np.float32)
    for first in range(0, len(h), BLOCK_SERIES):
        start, held = 0, min(len(h) - first, BLOCK_SERIES)
        seen[:held] = h[first : first + held]
        for t in range(len(sizes)):
            series = min(sizes[t] - first, BLOCK_SERIES)
            if series <= 0:
                break
            multiply_rows(seen[:series], again, raw[:series])
            for s in range(series):
                row = order[start + first + s]
                for k in range(width):
                    new = activation(drive[row, k] + raw[s, k], number)
                    seen[s, k] = min(max(new, -MAX_ABS_STATE), MAX_ABS_STATE)
                out[row] = seen[s]
            start += sizes[t]
        h[first : first + held] = seen[:held]


@kernel
def _gru_row(drive, raw, bias, h) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Replace ``h`` (H,) by the next state.

    ``drive`` (3H,) are the gates' products of the inputs with their bias, ``raw`` (3H,) those of ``h``
    without ``bias`` (3H,).
    """
    width = len(h)
    for k in range(width):
        reset = sigmoid(drive[k] + raw[k] + bias[k])
        keep = sigmoid(drive[width + k] + raw[width + k] + bias[width + k])
        new = tanh(drive[2 * width + k] + reset * (raw[2 * width + k] + bias[2 * width + k]))
        h[k] = new + keep * (h[k] - new)


@kernel
def advance_gru(drive, packed, layer, h, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Advance a GRU layer (Cho et al. 2014).

    Args:
        drive: Products of the inputs with their bias (N, 3H).
        packed: Order and sizes of ``shared_lstm_numba.pack``.
        layer: Recurrent weights (H, 3H) and their bias (3H,).
        h: Hidden states (B, H), the longest series first, changed in place.
        out: Filled with the hidden state after each point (N, H).
    """
    (order, sizes), (again, bias) = packed, layer
    width = h.shape[1]
    seen, raw = np.empty((BLOCK_SERIES, width), np.float32), np.empty((BLOCK_SERIES, 3 * width), np.float32)
    for first in range(0, len(h), BLOCK_SERIES):
        start, held = 0, min(len(h) - first, BLOCK_SERIES)
        seen[:held] = h[first : first + held]
        for t in range(len(sizes)):
            series = min(sizes[t] - first, BLOCK_SERIES)
            if series <= 0:
                break
            multiply_rows(seen[:series], again, raw[:series])
            for s in range(series):
                row = order[start + first + s]
                _gru_row(drive[row], raw[s], bias, seen[s])
                out[row] = seen[s]
            start += sizes[t]
        h[first : first + held] = seen[:held]


@kernel
def gru_cell(x, inward, recurrent, h) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Advance a GRU cell with one input, in place.

    Args:
        x: Inputs (N,).
        inward: Weights (3H,) and bias (3H,) of the input.
        recurrent: Products of ``h`` (N, 3H), and their bias (3H,).
        h: Hidden states (N, H).
    """
    (into, bias_in), (raw, bias) = inward, recurrent
    drive = np.empty(len(into), np.float32)
    for i in range(len(x)):
        for k in range(len(into)):
            drive[k] = x[i] * into[k] + bias_in[k]
        _gru_row(drive, raw[i], bias, h[i])


@kernel
def fill_windows(inputs, slot, seen, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the window of each point, feature by feature, the oldest first.

    Args:
        inputs: Inputs of the points (N, F).
        slot: Channel slot of each point (N,).
        seen: Inputs before the first point of each slot (S, W − 1, F); they move on in place.
        out: Filled with the windows (N, F · W).
    """
    before, features = seen.shape[1], inputs.shape[1]
    window = before + 1
    for i in range(len(slot)):
        past = seen[slot[i]]
        for f in range(features):
            for w in range(before):
                out[i, f * window + w] = past[w, f]
            out[i, f * window + before] = inputs[i, f]
        if before:
            for w in range(before - 1):
                past[w] = past[w + 1]
            past[before - 1] = inputs[i]


@kernel
def advance_attention(pair, slot, place, states, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write each hidden vector, and the mixture of states before it.

    Args:
        pair: Hidden vectors (N, H) and queries (N, H).
        slot: Channel slot of each point (N,).
        place: Weights by age (M,), the oldest first.
        states: The last states in a ring (S, M, H), and their number (S,), changed in place.
        out: Filled with both (N, 2H).
    """
    (hidden, query), (past, count) = pair, states
    memory, width = past.shape[1], past.shape[2]
    score = np.empty(memory, np.float32)
    for i in range(len(slot)):
        ring, n = past[slot[i]], count[slot[i]]
        known = min(n, memory)
        highest = np.float32(-1e30)
        for a in range(known):  # the state a + 1 steps back
            total = np.float32(0)
            state = ring[(n - 1 - a) % memory]
            for k in range(width):
                total += query[i, k] * state[k]
            score[a] = total + place[memory - 1 - a]
            highest = max(highest, score[a])
        out[i, :width] = hidden[i]
        out[i, width:] = np.float32(0)
        whole = np.float32(0)
        for a in range(known):
            score[a] = np.float32(np.exp(score[a] - highest))
            whole += score[a]
        for a in range(known):
            state, weight = ring[(n - 1 - a) % memory], score[a] / whole
            for k in range(width):
                out[i, width + k] += weight * state[k]
        ring[n % memory] = hidden[i]
        count[slot[i]] = n + 1


@kernel
def add_experts(found, features, columns) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Add the forecasts in ``columns`` (K,) of the inputs to ``found`` (N, K).

    The inputs (N, F) hold them as asinh.
    """
    for i in range(len(found)):
        for k in range(len(columns)):
            found[i, k] += np.float32(np.sinh(np.float64(features[i, columns[k]])))


@kernel
def count_locations(found, last, unit) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Make the locations (N, K) of counts, in place: a mean count is positive.

    ``last`` (N,) and ``unit`` (N,) are those of ``FeatureRows``.
    """
    for i in range(len(found)):
        ratio = 0.0
        if last[i] > 0:
            ratio = min(last[i] / unit[i], MAX_COUNT_UNITS)
        for k in range(found.shape[1]):
            raw = ratio + np.float64(found[i, k])
            mean = max(raw, 0.0) + np.log1p(np.exp(-abs(raw)))
            found[i, k] = mean - ratio
