"""Training of the next-event network on normal sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
HELD_OUT_SHARE = 0.2
FOLDS = 5  # whole parts of that share
MIN_SEQUENCES = 20
MAX_EPOCHS = 60
PATIENCE_EPOCHS = 6
MIN_GAIN_NATS = 1e-4
#: Share of input tokens that are replaced by the unknown token: the network learns to continue after one.
UNKNOWN_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Result of a training.

    held_out_nats: mean negative log-likelihood of a held-out token. temperature: divisor of the logits that
    makes this smallest. epochs: number of passes. held_out: indices of the sequences left out of the fit.
    """

    held_out_nats: float
    temperature: float
    epochs: int
    held_out: tuple[int, ...]


def train(
    sequences: Sequence[Tokens],
    config: EmbeddingLSTMConfig,
    *,
    sessions: bool = True,
    seed: int = 0,
    fold: int = 0,
    max_epochs: int = MAX_EPOCHS,
) -> tuple[EmbeddingLSTM, TrainingReport]:
    """Fit a network to sequences of tokens.

    Args:
        sequences: Token numbers, one array per session or key, in the order of time.
        config: Shape of the network.
        sessions: Sequences are whole sessions: their end is learned like an event.
        seed: Seed of the weights, of the held-out part and of the batches.
        fold: Part that is left out of the fit.
        max_epochs: Most passes; training ends sooner if the held-out error stops falling.

    Returns:
        The network with the smallest held-out error, and the report.

    Raises:
        ValueError: there are fewer than ``MIN_SEQUENCES`` sequences.
    """
    if len(sequences) < MIN_SEQUENCES:
        raise ValueError(f"training needs at least {MIN_SEQUENCES} sequences, there are {len(sequences)}")
    held_out = held_out_rows(len(sequences), seed, fold)
    fit = [frame(one, sessions) for row, one in enumerate(sequences) if row not in set(held_out.tolist())]
    judge = [frame(sequences[row], sessions) for row in held_out]
    torch.manual_seed(seed)
    network = EmbeddingLSTM(config)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], LEARNING_RATE)
    best, best_weights, stale, epochs = np.inf, network.state_dict(), 0, 0
    while epochs < max_epochs and stale < PATIENCE_EPOCHS:
        epochs += 1
        _run_epoch(network, optimiser, fit)
        loss = held_out_loss(network, judge)
        if loss < best - MIN_GAIN_NATS:
            best, stale = loss, 0
            best_weights = {name: value.clone() for name, value in network.state_dict().items()}
        else:
            stale += 1
    network.load_state_dict(best_weights)
    temperature = fit_temperature(network, judge)
    return network, TrainingReport(best, temperature, epochs, tuple(int(i) for i in held_out))


def held_out_rows(n: int, seed: int, fold: int = 0) -> NDArray[np.int64]:
    """Return the rows of ``n`` sequences that are left out of the fit.

    The rows of the ``FOLDS`` folds are disjoint.
    """
    size = max(1, round(HELD_OUT_SHARE * n))
    return np.random.default_rng(seed).permutation(n)[fold * size : (fold + 1) * size]


def frame(tokens: Tokens, sessions: bool) -> Tokens:
    """Return the tokens after a boundary, for whole sessions also before one."""
    end = [BOUNDARY] if sessions else []
    return np.r_[BOUNDARY, tokens, end].astype(np.int32)


def held_out_loss(network: EmbeddingLSTM, sequences: Sequence[Tokens], temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of a token, in nats."""
    total, count = 0.0, 0
    network.eval()
    with torch.no_grad():
        for start in range(0, len(sequences), BATCH_SEQUENCES):
            state: LstmState | None = None
            for inputs, targets in chunks(sequences[start : start + BATCH_SEQUENCES]):
                logits, state = network(inputs, state)
                total += float(_loss(logits / temperature, targets, "sum"))
                count += int((targets != PADDING).sum())
    return total / max(count, 1)


def fit_temperature(network: EmbeddingLSTM, sequences: Sequence[Tokens]) -> float:
    """Return the divisor of the logits with the smallest held-out error.

    A network that was fitted to few sequences is too sure of itself. (Temperature scaling: Guo et al., "On
    calibration of modern neural networks", ICML 2017.)
    """
    grid = np.round(np.arange(0.8, 2.55, 0.05), 2)
    return float(min(grid, key=lambda t: held_out_loss(network, sequences, float(t))))


def chunks(sequences: Sequence[Tokens]) -> list[tuple[Tensor, Tensor]]:
    """Return inputs and targets (B, ≤ CHUNK_STEPS) of each chunk of time."""
    longest = max(len(one) for one in sequences)
    padded = np.full((len(sequences), longest), PADDING, np.int64)
    for row, one in enumerate(sequences):
        padded[row, : len(one)] = one
    whole = torch.from_numpy(padded)
    return [
        (
            whole[:, at : min(at + CHUNK_STEPS, longest - 1)].clamp(min=BOUNDARY),
            whole[:, at + 1 : min(at + CHUNK_STEPS, longest - 1) + 1],
        )
        for at in range(0, longest - 1, CHUNK_STEPS)
    ]


def _run_epoch(network: EmbeddingLSTM, optimiser: torch.optim.Optimizer, sequences: Sequence[Tokens]) -> None:
    network.train()
    for rows in torch.split(torch.randperm(len(sequences)), BATCH_SEQUENCES):
        state: LstmState | None = None
        for inputs, targets in chunks([sequences[int(row)] for row in rows]):
            noisy = torch.where(
                (torch.rand(inputs.shape) < UNKNOWN_SHARE) & (inputs != BOUNDARY), UNKNOWN, inputs
            )
            logits, state = network(noisy, state)
            optimiser.zero_grad()
            torch.autograd.backward(_loss(logits, targets, "mean"))
            nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            state = detach(state)


def _loss(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PADDING, reduction=reduction
    )
