"""From normal sequences of codes to a detector with a calibrated limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.sequences.detector import Events, NextEventDetector, conformal_limit, surprise_of
from detectors.sequences.embedding_lstm import EmbeddingLSTM, EmbeddingLSTMConfig
from detectors.sequences.frozen_lstm import EventProbabilities
from detectors.sequences.training import (
    FOLDS,
    MIN_SEQUENCES,
    Framed,
    TrainingReport,
    frame,
    train,
    train_on_all,
)
from detectors.sequences.vocabulary import UNKNOWN, Vocabulary
from detectors.sequences.window import WindowRule, initial_window, judge_window

#: Share of normal sessions, or of normal events where there are no sessions, that may raise an alarm.
SESSION_ALARM_RATE: Final = 0.01
EVENT_ALARM_RATE: Final = 1e-4
#: Share of these alarms that the last events together may raise beside single ones.
WINDOW_RATE_SHARE: Final = 0.1
#: Held-out sessions over the limit that place it well: with n of them its rate is off by one part in √n.
TAIL_VALUES: Final = 16
#: Events above which the sequences that one network leaves out have to do.
MAX_CROSS_FIT_EVENTS: Final = 100_000
DEFAULT_SIZE: Final = (32, 64, 1)  # embedding, hidden units, layers
#: Events of one part of a series without sessions, and events before it that bring up the state.
PIECE_EVENTS: Final = 100
CONTEXT_EVENTS: Final = 100

Codes = Sequence[str]
Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Piece:
    """Codes of one session, or a part of a series with the codes before it."""

    codes: Codes
    before: Codes = ()


@dataclass(slots=True)
class _HeldOut:
    """Sequences that a network has left out, with their probabilities.

    own  (N,) bool  the event is no context
    """

    sessions: bool
    events: Events
    own: NDArray[np.bool_]
    found: EventProbabilities

    @property
    def values(self) -> int:
        """Number of values: sessions, or events without sessions."""
        return int(self.events.slot[-1]) + 1 if self.sessions else int(self.own.sum())

    def surprises(self) -> NDArray[np.float64]:
        """Return the surprise of each event, of sessions the largest."""
        return self._by_session(surprise_of(self.found).astype(np.float64))

    def evidence(self, limit: float) -> NDArray[np.float64]:
        """Return the evidence of the window after each event, of sessions the largest.

        ``limit`` is the surprise of an alarm.
        """
        left_out = (self.events.token == UNKNOWN) & (surprise_of(self.found) >= limit)
        state = initial_window(int(self.events.slot[-1]) + 1)
        rule = WindowRule(limit=0.0, rare=True, level=False)
        events = self.events.slot, self.events.token
        return self._by_session(judge_window(state, events, self.found, left_out, rule))

    def _by_session(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.sessions:
            return values[self.own]
        largest = np.zeros(self.values)
        np.maximum.at(largest, self.events.slot, values)
        return largest


@dataclass(frozen=True, slots=True)
class _Recipe:
    pieces: Sequence[Piece]
    sessions: bool
    size: tuple[int, int, int]
    seed: int
    on_epoch: Callable[[], None]


def fit_detector(
    sequences: Sequence[Codes | Piece],
    *,
    sessions: bool = True,
    alarm_rate: float | None = None,
    size: tuple[int, int, int] = DEFAULT_SIZE,
    seed: int = 0,
    on_epoch: Callable[[], None] = lambda: None,
) -> tuple[NextEventDetector, TrainingReport]:
    """Fit vocabulary, network and limit to normal sequences.

    Few sequences are left out of the fit, so further networks leave out the others, and all of them set the
    limit. (Cross-conformal: Vovk 2015.)

    Sessions are left out at random. Parts of a series resemble their neighbours, so those of one span of time
    are left out together, and the detector has a network of its own that has seen all of them. (Blocks of
    time: Bergmeir & Benítez, "On the use of cross-validation for time series predictor evaluation", 2012.)

    Args:
        sequences: Codes of one session each, or parts of series in the order of time.
        sessions: Sequences are whole sessions: an end that comes too early is an alarm.
        alarm_rate: Share of normal sessions (of normal events without sessions) that may raise an alarm.
        size: Length of the vector of a code, units of a layer, and layers.
        seed: Seed of weights, held-out part and batches.
        on_epoch: Called after each pass over the sequences.

    Returns:
        The detector and the report of the training.

    Raises:
        ValueError: there are too few sequences.
    """
    if len(sequences) < MIN_SEQUENCES:
        raise ValueError(f"training needs at least {MIN_SEQUENCES} sequences, there are {len(sequences)}")
    pieces = [one if isinstance(one, Piece) else Piece(one) for one in sequences]
    recipe = _Recipe(pieces, sessions, size, seed, on_epoch)
    rate = alarm_rate or (SESSION_ALARM_RATE if sessions else EVENT_ALARM_RATE)
    made, report, scored = _fit_fold(recipe, 0)
    parts, epochs = [scored], [report.best_epoch]
    for fold in range(1, FOLDS):
        judged = sum(part.values for part in parts)
        if judged >= TAIL_VALUES / rate or sum(len(one.codes) for one in pieces) > MAX_CROSS_FIT_EVENTS:
            break
        _, other, scored = _fit_fold(recipe, fold)
        parts.append(scored)
        epochs.append(other.best_epoch)
    if not sessions:
        made = _fit_all(recipe, int(np.median(epochs)), report.temperature)
    return _with_limits(made, parts, rate), report


def _with_limits(made: NextEventDetector, parts: Sequence[_HeldOut], rate: float) -> NextEventDetector:
    limit = conformal_limit(np.concatenate([one.surprises() for one in parts]), rate)
    evidence = np.concatenate([one.evidence(limit) for one in parts])
    window_limit = conformal_limit(evidence, WINDOW_RATE_SHARE * rate)
    return made.with_limit(limit, rate, window_limit, window_rare=True)


def pieces_of(codes: Codes, size: int = PIECE_EVENTS) -> list[Piece]:
    """Return the parts of a series of ``codes``, with ``size`` events each."""
    begins = range(0, len(codes), size)
    return [Piece(codes[at : at + size], codes[max(0, at - CONTEXT_EVENTS) : at]) for at in begins]


def held_out_rows(n: int, *, sessions: bool, seed: int, fold: int) -> NDArray[np.int64]:
    """Return the rows that a fold leaves out: random sessions, or a span of time.

    Args:
        n: Number of sequences.
        sessions: Sequences are whole sessions.
        seed: Seed of the draw.
        fold: Number of the fold; the rows of all folds are disjoint.
    """
    size = max(1, round(n / FOLDS))
    order = np.random.default_rng(seed).permutation(n) if sessions else np.arange(n)
    return order[fold * size : (fold + 1) * size]


def joined_events(sequences: Sequence[Framed]) -> tuple[Events, NDArray[np.bool_]]:
    """Return the events of all sequences, one key each, and which are no context (N,)."""
    tokens = [one.tokens[1:] for one in sequences]  # the state of a new key is that after a boundary
    slot = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(one) for one in tokens])
    own = np.concatenate([np.arange(len(one.tokens) - 1) >= one.lead for one in sequences])
    return Events(slot, np.concatenate(tokens)), own


def _fit_fold(recipe: _Recipe, fold: int) -> tuple[NextEventDetector, TrainingReport, _HeldOut]:
    """Fit to all but one fold, and judge the rest."""
    n, sessions = len(recipe.pieces), recipe.sessions
    left_out = held_out_rows(n, sessions=sessions, seed=recipe.seed, fold=fold)
    kept = np.setdiff1d(np.arange(n), left_out)
    counts = _counts([recipe.pieces[row] for row in kept])
    vocabulary = Vocabulary.learn(counts)
    learned = [_framed(vocabulary, recipe.pieces[row], sessions) for row in kept]
    judged = [_framed(vocabulary, recipe.pieces[row], sessions) for row in left_out]
    config = EmbeddingLSTMConfig(len(vocabulary), *recipe.size)
    network, report = train(learned, judged, config, seed=recipe.seed, on_epoch=recipe.on_epoch)
    made = _detector(vocabulary, network, report.temperature, counts)
    events, own = joined_events(judged)
    found = made.score(made.initial(len(judged)), events)
    return made, report, _HeldOut(sessions, events, own, found)


def _fit_all(recipe: _Recipe, epochs: int, temperature: float) -> NextEventDetector:
    """Fit to all sequences, without a limit."""
    counts = _counts(recipe.pieces)
    vocabulary = Vocabulary.learn(counts)
    learned = [_framed(vocabulary, one, recipe.sessions) for one in recipe.pieces]
    config = EmbeddingLSTMConfig(len(vocabulary), *recipe.size)
    network = train_on_all(learned, config, epochs=epochs, seed=recipe.seed)
    return _detector(vocabulary, network, temperature, counts)


def _counts(pieces: Sequence[Piece]) -> Counter[str]:
    return Counter(code for one in pieces for code in one.codes)


def _framed(vocabulary: Vocabulary, piece: Piece, sessions: bool) -> Framed:
    return frame(vocabulary.encode(piece.codes), sessions, vocabulary.encode(piece.before))


def _detector(
    vocabulary: Vocabulary, network: EmbeddingLSTM, temperature: float, counts: Counter[str]
) -> NextEventDetector:
    return NextEventDetector(
        vocabulary,
        {name: value.detach().numpy().astype(np.float32) for name, value in network.state_dict().items()},
        limit=np.inf,
        temperature=temperature,
        unknown_probability=unknown_probability(counts),
    )


def unknown_probability(counts: Counter[str]) -> float:
    """Return the probability that the next event has a code that was never seen.

    It is the share of codes that were seen once (Good, "The population frequencies of species and the
    estimation of population parameters", Biometrika 1953), at least that of half an event.
    """
    total = sum(counts.values())
    return (sum(1 for count in counts.values() if count == 1) + 0.5) / (total + 1.0)
