"""Training of the next-event network on normal sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.sequences.embedding_lstm import EmbeddingLSTM, EmbeddingLSTMConfig, LstmState, detach
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN

Tokens = NDArray[np.int32]

PADDING = -1  # target of a position after the end of a sequence
CHUNK_STEPS = 128  # steps of truncated BPTT
BATCH_SEQUENCES = 64
LEARNING_RATE = 3e-3
MAX_GRADIENT_NORM = 1.0
FOLDS = 5  # parts of the sequences, of which one is held out
MIN_SEQUENCES = 20
MAX_EPOCHS = 60
PATIENCE_EPOCHS = 6
MIN_GAIN_NATS = 1e-4
#: Share of input tokens that are replaced by the unknown token: the network learns to continue after one.
UNKNOWN_SHARE = 0.02


class Framed(NamedTuple):
    """Tokens of one sequence with its boundaries.

    lead: tokens after the first boundary that are no targets.
    """

    tokens: Tokens
    lead: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Result of a training.

    held_out_nats: mean negative log-likelihood of a held-out token. temperature: divisor of the logits that
    makes this smallest. epochs: number of passes, of which the first ``best_epoch`` made the network.
    """

    held_out_nats: float
    temperature: float
    epochs: int
    best_epoch: int


def train(
    sequences: Sequence[Framed],
    held_out: Sequence[Framed],
    config: EmbeddingLSTMConfig,
    *,
    seed: int = 0,
    on_epoch: Callable[[], None] = lambda: None,
) -> tuple[EmbeddingLSTM, TrainingReport]:
    """Fit a network to sequences of tokens.

    Args:
        sequences: Sequences to learn from.
        held_out: Sequences that decide when the training ends.
        config: Shape of the network.
        seed: Seed of the weights and of the batches.
        on_epoch: Called after each pass.

    Returns:
        The network with the smallest held-out error, and the report.
    """
    network, optimiser = _new_network(config, seed)
    best, best_weights, best_epoch, epochs = np.inf, network.state_dict(), 0, 0
    while epochs < MAX_EPOCHS and epochs - best_epoch < PATIENCE_EPOCHS:
        epochs += 1
        _run_epoch(network, optimiser, sequences)
        loss = held_out_loss(network, held_out)
        if loss < best - MIN_GAIN_NATS:
            best, best_epoch = loss, epochs
            best_weights = {name: value.clone() for name, value in network.state_dict().items()}
        on_epoch()
    network.load_state_dict(best_weights)
    return network, TrainingReport(best, fit_temperature(network, held_out), epochs, best_epoch)


def train_on_all(
    sequences: Sequence[Framed], config: EmbeddingLSTMConfig, *, epochs: int, seed: int = 0
) -> EmbeddingLSTM:
    """Fit a network to all sequences by a known number of passes.

    Args:
        sequences: Sequences to learn from.
        config: Shape of the network.
        epochs: Number of passes.
        seed: Seed of the weights and of the batches.
    """
    network, optimiser = _new_network(config, seed)
    for _ in range(epochs):
        _run_epoch(network, optimiser, sequences)
    return network


def frame(tokens: Tokens, sessions: bool, before: Tokens | None = None) -> Framed:
    """Return the tokens after a boundary, for whole sessions also before one.

    Args:
        tokens: The tokens.
        sessions: The end is learned like an event.
        before: Tokens before them, which only bring up the state.
    """
    end = [BOUNDARY] if sessions else []
    context = np.zeros(0, np.int32) if before is None else before
    return Framed(np.r_[BOUNDARY, context, tokens, end].astype(np.int32), len(context))


def held_out_loss(network: EmbeddingLSTM, sequences: Sequence[Framed]) -> float:
    """Return the mean negative log-likelihood of a token, in nats."""
    return _held_out_losses(network, sequences, [1.0])[0]


def fit_temperature(network: EmbeddingLSTM, sequences: Sequence[Framed]) -> float:
    """Return the divisor of the logits with the smallest held-out error.

    A network that was fitted to few sequences is too sure of itself. (Temperature scaling: Guo et al., "On
    calibration of modern neural networks", ICML 2017.)
    """
    grid = np.round(np.arange(0.8, 2.55, 0.05), 2).tolist()
    losses = _held_out_losses(network, sequences, grid)
    return float(grid[int(np.argmin(losses))])


def _held_out_losses(
    network: EmbeddingLSTM, sequences: Sequence[Framed], temperatures: Sequence[float]
) -> list[float]:
    """Return the mean loss of a token, in nats, for each divisor of the logits."""
    totals, count = [0.0] * len(temperatures), 0
    network.eval()
    with torch.no_grad():
        for start in range(0, len(sequences), BATCH_SEQUENCES):
            state: LstmState | None = None
            for inputs, targets in chunks(sequences[start : start + BATCH_SEQUENCES]):
                logits, state = network(inputs, state)
                for number, temperature in enumerate(temperatures):
                    totals[number] += float(_loss(logits / temperature, targets, "sum"))
                count += int((targets != PADDING).sum())
    return [total / max(count, 1) for total in totals]


def chunks(sequences: Sequence[Framed]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets (B, ≤ CHUNK_STEPS) of each chunk of time.

    The unknown code is no target: its probability is not the network's.
    """
    longest = max(len(one.tokens) for one in sequences)
    inputs = np.zeros((len(sequences), longest), np.int64)
    targets = np.full((len(sequences), longest), PADDING, np.int64)
    for row, (tokens, lead) in enumerate(sequences):
        inputs[row, : len(tokens)] = tokens
        targets[row, lead + 1 : len(tokens)] = tokens[lead + 1 :]
    targets[targets == UNKNOWN] = PADDING
    before, after = torch.from_numpy(inputs)[:, :-1], torch.from_numpy(targets)[:, 1:]
    for at in range(0, longest - 1, CHUNK_STEPS):
        yield before[:, at : at + CHUNK_STEPS], after[:, at : at + CHUNK_STEPS]


def _new_network(config: EmbeddingLSTMConfig, seed: int) -> tuple[EmbeddingLSTM, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = EmbeddingLSTM(config)
    trained = [p for p in network.parameters() if p.requires_grad]
    return network, torch.optim.Adam(trained, LEARNING_RATE)


def _run_epoch(network: EmbeddingLSTM, optimiser: torch.optim.Optimizer, sequences: Sequence[Framed]) -> None:
    network.train()
    for rows in torch.split(torch.randperm(len(sequences)), BATCH_SEQUENCES):
        state: LstmState | None = None
        for inputs, targets in chunks([sequences[int(row)] for row in rows]):
            noisy = torch.where(
                (torch.rand(inputs.shape) < UNKNOWN_SHARE) & (inputs != BOUNDARY), UNKNOWN, inputs
            )
            logits, state = network(noisy, state)
            state = detach(state)
            if bool((targets == PADDING).all()):  # it only brings up the state
                continue
            optimiser.zero_grad()
            torch.autograd.backward(_loss(logits, targets, "mean"))
            nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()


def _loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PADDING, reduction=reduction
    )
