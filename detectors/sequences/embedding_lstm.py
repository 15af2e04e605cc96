"""Embedding → LSTM → Dense → softmax over the next event, in torch.

The probability of an event given the events before it is that of DeepLog (Du et al., "DeepLog: anomaly
detection and diagnosis from system logs through deep learning", CCS 2017), with an embedding in place of the
one-hot input. Scoring needs no torch: ``detectors.sequences.frozen_lstm``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

LstmState = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class EmbeddingLSTMConfig:
    """Shape of the network.

    tokens: size of the vocabulary with its special tokens. outputs: size of the softmax, by default tokens.
    """

    tokens: int
    embedding: int = 32
    hidden: int = 64
    layers: int = 1
    outputs: int | None = None


class EmbeddingLSTM(nn.Module):
    """Next-event network.

    torch has two bias vectors for each gate, whose sum alone has an effect. The recurrent one is fixed at
    zero, so that the trainable parameters are those of the equations: V·E + 4H(E + H + 1) + (H + 1)·O.
    """

    def __init__(self, config: EmbeddingLSTMConfig) -> None:
        """Make a network with random weights."""
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.tokens, config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.hidden, config.layers, batch_first=True)
        self.head = nn.Linear(config.hidden, config.outputs or config.tokens)
        for layer in range(config.layers):
            recurrent = getattr(self.lstm, f"bias_hh_l{layer}")
            recurrent.data.zero_()
            recurrent.requires_grad_(False)

    def forward(self, tokens: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState]:
        """Return the logits of the token after each one, and the state after the last.

        ``tokens`` (B, T) → logits (B, T, outputs), state twice (layers, B, H).
        """
        hidden, after = self.lstm(self.embedding(tokens), state)
        return self.head(hidden), after

    def count_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def detach(state: LstmState) -> LstmState:
    """Cut the gradient between two chunks of a sequence (truncated BPTT)."""
    hidden, cell = state
    return hidden.detach(), cell.detach()
