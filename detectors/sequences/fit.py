"""From normal sequences of codes to a detector with a calibrated limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.sequences.detector import MIN_P_VALUE, Events, NextEventDetector, conformal_limit
from detectors.sequences.embedding_lstm import EmbeddingLSTMConfig
from detectors.sequences.training import FOLDS, TrainingReport, held_out_rows, train
from detectors.sequences.vocabulary import BOUNDARY, Vocabulary
from detectors.sequences.window import initial_window, window_evidence

#: Share of normal sessions, or of normal events where there are no sessions, that may raise an alarm.
SESSION_ALARM_RATE: Final = 0.01
EVENT_ALARM_RATE: Final = 1e-4
#: Share of these alarms that the last events together may raise beside single ones.
WINDOW_RATE_SHARE: Final = 0.1
#: Held-out sessions over the limit that place it well: with n of them its rate is off by one part in √n.
TAIL_VALUES: Final = 16
#: Events above which the sessions that one network leaves out have to do.
MAX_CROSS_FIT_EVENTS: Final = 100_000
DEFAULT_SIZE: Final = (32, 64, 1)  # embedding, hidden units, layers


def fit_detector(
    sequences: Sequence[Sequence[str]],
    *,
    sessions: bool = True,
    alarm_rate: float | None = None,
    size: tuple[int, int, int] = DEFAULT_SIZE,
    seed: int = 0,
) -> tuple[NextEventDetector, TrainingReport]:
    """Fit vocabulary, network and limit to normal sequences.

    Few sessions are left out of the fit, and few of them lie near the limit. So further networks are fitted
    that leave out the others, and the sessions of all of them set it. (Cross-conformal: Vovk 2015.)

    Args:
        sequences: Codes of one session or key each, in the order of time.
        sessions: Sequences are whole sessions: an end that comes too early is an alarm.
        alarm_rate: Share of normal sessions (of normal events without sessions) that may raise an alarm.
        size: Length of the vector of a code, units of an LSTM layer, and LSTM layers.
        seed: Seed of weights, held-out part and batches.

    Returns:
        The detector and the report of the training.

    Raises:
        ValueError: there are too few sequences.
    """
    made, report, largest = _fit_fold(sequences, sessions, size, seed, 0)
    rate = alarm_rate or (SESSION_ALARM_RATE if sessions else EVENT_ALARM_RATE)
    parts = [largest]
    for fold in range(1, FOLDS):
        judged = sum(part.shape[1] for part in parts)
        if judged >= TAIL_VALUES / rate or not sessions or _tokens(sequences) > MAX_CROSS_FIT_EVENTS:
            break
        parts.append(_fit_fold(sequences, sessions, size, seed, fold)[2])
    surprises, evidence = np.concatenate(parts, axis=1)
    window_limit = conformal_limit(evidence, WINDOW_RATE_SHARE * rate)
    return made.with_limit(conformal_limit(surprises, rate), rate, window_limit), report


def _tokens(sequences: Sequence[Sequence[str]]) -> int:
    return sum(map(len, sequences))


def _fit_fold(
    sequences: Sequence[Sequence[str]], sessions: bool, size: tuple[int, int, int], seed: int, fold: int
) -> tuple[NextEventDetector, TrainingReport, NDArray[np.float64]]:
    """Fit to all but one fold; return the largest values of its sessions.

    They are those of ``_held_out_largest``.
    """
    kept_out = set(held_out_rows(len(sequences), seed, fold).tolist())
    counts = Counter(code for row, one in enumerate(sequences) if row not in kept_out for code in one)
    vocabulary = Vocabulary.learn(counts)
    tokens = [vocabulary.encode(one) for one in sequences]
    config = EmbeddingLSTMConfig(len(vocabulary), *size)
    network, report = train(tokens, config, sessions=sessions, seed=seed, fold=fold)
    tensors = {name: value.numpy().astype(np.float32) for name, value in network.state_dict().items()}
    unknown = unknown_probability(counts)
    made = NextEventDetector(
        vocabulary, tensors, limit=np.inf, temperature=report.temperature, unknown_probability=unknown
    )
    return made, report, _held_out_largest(made, [tokens[row] for row in report.held_out], sessions)


def unknown_probability(counts: Counter[str]) -> float:
    """Return the probability that the next event has a code that was never seen.

    It is the share of codes that were seen once (Good, "The population frequencies of species and the
    estimation of population parameters", Biometrika 1953), at least that of half an event.
    """
    total = sum(counts.values())
    return (sum(1 for count in counts.values() if count == 1) + 0.5) / (total + 1.0)


def _held_out_largest(
    detector: NextEventDetector, sequences: Sequence[NDArray[np.int32]], sessions: bool
) -> NDArray[np.float64]:
    """Return the largest surprise and evidence of the window of each session (2, n).

    Without sessions, return those of each event.
    """
    ends = [np.r_[one, BOUNDARY].astype(np.int32) if sessions else one for one in sequences]
    slot = np.repeat(np.arange(len(ends), dtype=np.int32), [len(one) for one in ends])
    events = Events(slot, np.concatenate(ends))
    found = detector.score(detector.initial(len(ends)), events)
    evidence = window_evidence(initial_window(len(ends)), slot, events.token, found)
    surprise = -np.log10(np.clip(found.p_value, MIN_P_VALUE, 1.0)).astype(np.float32).astype(np.float64)
    if not sessions:
        return np.stack([surprise, evidence])
    largest = np.zeros((2, len(ends)))
    for row, values in enumerate((surprise, evidence)):
        np.maximum.at(largest[row], slot, values)
    return largest
