"""The next-event network in scoring, without torch.

It keeps its state per key. Each event is computed by itself, in the order of the events, so that the figures
do not depend on how a log was cut into batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel, sigmoid, tanh
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN

#: Bound of one event in the likelihood of a window: an event of 0.7 % counts like rarer ones,
#: and such events are counted as rare.
MAX_EVENT_NATS: Final = 5.0
TOP_EVENTS: Final = 3  # most probable events that are kept for the explanation


class EventProbabilities(NamedTuple):
    """Probabilities of N events, given the events before each.

    probability      (N,)    float32  of the event
    p_value          (N,)    float32  of an event that is at most as probable
    rank             (N,)    int32    number of events that are more probable
    top              (N, K)  int32    most probable tokens
    top_probability  (N, K)  float32
    excess           (N,)    float32  bounded −ln of the probability, less its expected value
    variance         (N,)    float32  of the excess, by the probabilities of all events
    rare             (N,)    float32  1 for a rare event or a new code, 0 for others, less its expected value
    rare_variance    (N,)    float32
    """

    probability: Floats
    p_value: Floats
    rank: NDArray[np.int32]
    top: NDArray[np.int32]
    top_probability: Floats
    excess: Floats
    variance: Floats
    rare: Floats
    rare_variance: Floats


class FrozenEmbeddingLSTM:
    """Embedding, LSTM layers and softmax with fixed weights.

    State per key: ``h`` and ``c`` (S, layers, H) float32.
    """

    def __init__(
        self, tensors: Mapping[str, NDArray[Any]], temperature: float, unknown_probability: float
    ) -> None:
        """Stack the weights of each layer.

        Args:
            tensors: Weights with the names of ``EmbeddingLSTM.state_dict``.
            temperature: Divisor of the logits.
            unknown_probability: Probability that an event has a code which is not in the vocabulary.
        """
        self._head = _float32(_float32(tensors["head.weight"]).T / np.float32(temperature))
        self._head_bias = _float32(tensors["head.bias"]) / np.float32(temperature)
        self._unknown_probability = np.float32(unknown_probability)
        inputs: list[Floats] = []
        recurrent: list[Floats] = []
        bias: list[Floats] = []
        while (name := f"l{len(bias)}") and f"lstm.weight_hh_{name}" in tensors:
            inputs.append(_float32(tensors[f"lstm.weight_ih_{name}"]).T)
            recurrent.append(_float32(tensors[f"lstm.weight_hh_{name}"]).T)
            bias.append(_float32(tensors[f"lstm.bias_ih_{name}"]) + _float32(tensors[f"lstm.bias_hh_{name}"]))
        #: Sums of the gates of the first layer that a token gives, (V, 4H): the embedding is looked up here.
        table = _float32(tensors["embedding.weight"]) @ inputs[0] + bias[0]
        self.hidden = recurrent[0].shape[0]
        inputs[0] = np.zeros_like(recurrent[0])  # not used: the table takes its place
        self._weights = (_float32(table), *(_float32(np.stack(one)) for one in (inputs, recurrent, bias)))
        self._fresh_h, self._fresh_c = self._after_boundary()

    @property
    def layers(self) -> int:
        """Number of LSTM layers."""
        return len(self._weights[3])

    def initial(self, n: int) -> State:
        """Return the state of ``n`` keys at the beginning of a session."""
        return {"h": np.repeat(self._fresh_h, n, 0), "c": np.repeat(self._fresh_c, n, 0)}

    def step(self, state: State, slot: Ints, token: Ints) -> Floats:
        """Advance keys and return the hidden state before each event (N, H).

        ``slot`` and ``token`` (N,) are in the order of time within each key. The state of a key is that of a
        new session after a boundary token.
        """
        before = np.empty((len(slot), self.hidden), np.float32)
        fresh = self._fresh_h[0], self._fresh_c[0]
        _advance(self._weights, fresh, (state["h"], state["c"]), (slot, token), before)
        return before

    def score(self, before: Floats, token: Ints) -> EventProbabilities:
        """Return the probabilities of events.

        ``before`` (N, H) is the hidden state before each event, ``token`` (N,) the event.
        """
        n = len(token)
        out = EventProbabilities(
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.int32),
            np.zeros((n, TOP_EVENTS), np.int32),
            np.zeros((n, TOP_EVENTS), np.float32),
            *(np.empty(n, np.float32) for _ in range(4)),
        )
        _rank(before, self._head, self._head_bias, self._unknown_probability, token, tuple(out))
        return out

    def _after_boundary(self) -> tuple[Floats, Floats]:
        shape = (1, self.layers, self.hidden)
        h, c = (np.zeros(shape, np.float32) for _ in range(2))
        token = np.full(1, BOUNDARY, np.int32)
        _run_layers(self._weights, token[0], h[0], c[0], np.empty(4 * self.hidden, np.float32))
        return h, c


def _float32(tensor: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(tensor, np.float32)


@kernel
def _run_layers(weights, token, h, c, gates):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Advance one key by one token.

    ``h`` and ``c`` (layers, H) are changed in place, ``gates`` (4H,) is scratch.
    """
    table, inputs, recurrent, bias = weights
    width = h.shape[1]
    for layer in range(len(h)):
        if layer == 0:
            gates[:] = table[token]
        else:
            gates[:] = bias[layer]
            for k in range(width):
                for j in range(len(gates)):
                    gates[j] += h[layer - 1, k] * inputs[layer, k, j]
        for k in range(width):
            for j in range(len(gates)):
                gates[j] += h[layer, k] * recurrent[layer, k, j]
        for k in range(width):
            kept = sigmoid(gates[width + k]) * c[layer, k]
            c[layer, k] = kept + sigmoid(gates[k]) * tanh(gates[2 * width + k])
            h[layer, k] = sigmoid(gates[3 * width + k]) * tanh(c[layer, k])


@kernel
def _advance(weights, fresh, state, events, before):  # type: ignore[no-untyped-def]  # noqa: ANN001
    (h, c), (slot, token) = state, events
    gates = np.empty(4 * h.shape[2], np.float32)
    for row in range(len(slot)):
        key = slot[row]
        before[row] = h[key, -1]
        if token[row] == BOUNDARY:
            h[key], c[key] = fresh
        else:
            _run_layers(weights, token[row], h[key], c[key], gates)


@kernel
def _insert(top, top_probability, token, p):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Insert a token among the most probable ones, if it is one of them."""
    place = len(top) - 1
    if p <= top_probability[place]:
        return
    while place > 0 and p > top_probability[place - 1]:
        top[place] = top[place - 1]
        top_probability[place] = top_probability[place - 1]
        place -= 1
    top[place] = token
    top_probability[place] = p


@kernel
def _softmax(before, head, bias, unknown, given, cost):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the probability of each code, and its −ln.

    Args:
        before: Hidden state before the event (H,).
        head: Weights (H, V).
        bias: Bias (V,).
        unknown: Probability of the unknown code.
        given: Probabilities (V,), written.
        cost: −ln of them (V,), written.
    """
    given[:] = bias
    for k in range(len(before)):
        for j in range(len(given)):
            given[j] += before[k] * head[k, j]
    highest = given.max()
    total = np.float32(0)
    for j in range(len(given)):
        cost[j] = highest - given[j]
        given[j] = np.exp(-cost[j])
        if j != UNKNOWN:
            total += given[j]
    scale = (np.float32(1) - unknown) / total
    base = -np.log(scale)
    for j in range(len(given)):
        given[j] *= scale
        cost[j] += base
    given[UNKNOWN], cost[UNKNOWN] = unknown, -np.log(unknown)


@kernel
def _rank(before, head, bias, unknown, token, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill the outputs of ``FrozenEmbeddingLSTM.score``."""
    probability, p_value, rank, top, top_probability, excess, variance, rare, rare_variance = out
    given, cost = np.empty(len(bias), np.float32), np.empty(len(bias), np.float32)
    most = np.float32(MAX_EVENT_NATS)
    for row in range(len(token)):
        _softmax(before[row], head, bias, unknown, given, cost)
        mean, square, rare_mass = np.float32(0), np.float32(0), np.float32(0)
        for j in range(len(given)):
            if cost[j] >= most or j == UNKNOWN:
                rare_mass += given[j]
            cost[j] = min(cost[j], most)
            mean += given[j] * cost[j]
            square += given[j] * cost[j] * cost[j]
        excess[row] = cost[token[row]] - mean
        variance[row] = max(square - mean * mean, np.float32(0))
        is_rare = cost[token[row]] >= most or token[row] == UNKNOWN
        rare[row] = np.float32(is_rare) - rare_mass
        rare_variance[row] = max(rare_mass * (np.float32(1) - rare_mass), np.float32(0))
        own = given[token[row]]
        mass, above = np.float32(0), 0
        for j in range(len(given)):
            if given[j] <= own:
                mass += given[j]
            else:
                above += 1
            _insert(top[row], top_probability[row], j, given[j])
        probability[row] = own
        p_value[row], rank[row] = mass, above
