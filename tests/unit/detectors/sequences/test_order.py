"""Order where counts are equal: a network without a memory is at chance, the recurrent one is right."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from detectors.sequences.detector import Events, NextEventDetector
from detectors.sequences.fit import fit_detector
from detectors.sequences.vocabulary import BOUNDARY

PAIRS = (("rectangle", "square"), ("circle", "triangle"))
SHAPES = ("rectangle", "square", "circle", "triangle")
Session = list[str]


def sessions(count: int, seed: int, order: int = 1) -> list[Session]:
    """Return sessions of five pairs each; ``order`` −1: the second shape of a pair before the first."""
    rng = np.random.default_rng(seed)
    return [[shape for pair in rng.integers(0, 2, 5) for shape in PAIRS[pair][::order]] for _ in range(count)]


def flagged(detector: NextEventDetector, some: list[Session]) -> float:
    """Return the share of sessions with an alarm."""
    tokens = [np.r_[detector.vocabulary.encode(one), BOUNDARY].astype(np.int32) for one in some]
    slot = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(one) for one in tokens])
    _, verdicts = detector.step(detector.initial(len(tokens)), Events(slot, np.concatenate(tokens)))
    out = np.zeros(len(tokens), np.bool_)
    np.logical_or.at(out, slot, verdicts.flag)
    return float(out.mean())


def counts(some: list[Session]) -> torch.Tensor:
    """Return how often each shape occurs in each session (N, 4)."""
    return torch.tensor([[float(one.count(shape)) for shape in SHAPES] for one in some])


def feedforward_accuracy(usual: list[Session], other: list[Session]) -> float:
    """Train a feed-forward network to tell the two orders apart; return its accuracy on further sessions."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    half = len(usual) // 2
    x, y = counts(usual[:half] + other[:half]), torch.tensor([0.0] * half + [1.0] * half)
    for _ in range(300):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        right = network(counts(usual[half:]))[:, 0] < 0
        wrong = network(counts(other[half:]))[:, 0] > 0
    return float(torch.cat((right, wrong)).float().mean())


def test_the_recurrent_network_tells_apart_what_the_feed_forward_one_cannot() -> None:
    usual, other = sessions(200, 1), sessions(200, 1, order=-1)
    assert torch.equal(counts(usual), counts(other))
    assert abs(feedforward_accuracy(usual, other) - 0.5) < 0.05
    detector, _ = fit_detector(sessions(200, 0), size=(8, 16, 1))
    assert flagged(detector, usual) <= 0.02
    assert flagged(detector, other) == 1.0
