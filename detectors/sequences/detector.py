"""Detection of unexpected, missing and new events in sequences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from detectors import artifacts
from detectors.base import State
from detectors.channel_batch import Ints
from detectors.jit import kernel
from detectors.sequences.code_numbers import code_number
from detectors.sequences.frozen_lstm import EventProbabilities, FrozenEmbeddingLSTM
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN, Vocabulary
from detectors.sequences.window import WindowRule, initial_window, judge_window

ARCHITECTURE: Final = "embedding_lstm"
RECENT_EVENTS: Final = 10  # events before an alarm that its explanation shows
MIN_P_VALUE: Final = 1e-30
DEFAULT_ALARM_RATE: Final = 0.01  # of models that do not state theirs


class EventCause(IntEnum):
    """Reason of an alarm in a sequence of events. The numbers are stored: append only."""

    NONE = 0
    UNEXPECTED_EVENT = 1
    MISSING_EVENT = 2
    NEW_EVENT = 3
    UNUSUAL_SEQUENCE = 4


@dataclass(slots=True)
class Events:
    """N events in the order of time within each key.

    slot   (N,) int32  row of the state
    token  (N,) int32  number of the vocabulary, ``BOUNDARY`` at the end of a session
    """

    slot: NDArray[np.int32]
    token: NDArray[np.int32]


@dataclass(slots=True)
class EventVerdicts:
    """Verdicts on N events, in the order of the events.

    probability     (N,)    float32  of the event, given the events before it
    surprise        (N,)    float32  −log10 of the probability of an event that is at most as probable
    flag            (N,)    bool     the surprise reaches the limit, or the last events do
    cause           (N,)    uint8    EventCause of a flagged event
    expected        (N, 3)  int32    tokens of the most probable events
    expected_probability (N, 3) float32
    recent          (N, 10) int32    tokens before the event, the last one at the end; −1: none
    """

    probability: NDArray[np.float32]
    surprise: NDArray[np.float32]
    flag: NDArray[np.bool_]
    cause: NDArray[np.uint8]
    expected: NDArray[np.int32]
    expected_probability: NDArray[np.float32]
    recent: NDArray[np.int32]


class EventDetector(Protocol):
    """One configured detector of a stream of events."""

    vocabulary: Vocabulary
    version: str

    def initial(self, n: int) -> State:
        """Return the state of ``n`` new keys."""
        ...

    def step(self, state: State, events: Events) -> tuple[State, EventVerdicts]:
        """Advance the keys of ``events`` and return their state and verdicts.

        The verdict on an event uses this event and earlier events of its key only.
        """
        ...


class NextEventDetector:
    """Embedding → LSTM → Dense → softmax, with a limit on the surprise of an event."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        tensors: dict[str, NDArray[Any]],
        *,
        limit: float,
        alarm_rate: float = DEFAULT_ALARM_RATE,
        temperature: float = 1.0,
        unknown_probability: float = 1e-4,
    ) -> None:
        """Freeze the weights.

        Args:
            vocabulary: Codes with their numbers.
            tensors: Weights with the names of ``EmbeddingLSTM.state_dict``.
            limit: Surprise from which on an event is an alarm.
            alarm_rate: Share of ordinary sessions (or events) that reach the limit.
            temperature: Divisor of the logits.
            unknown_probability: Probability of a code that is not in the vocabulary.
        """
        #: Evidence of ``window`` from which on the last events are an alarm, and whether rare events and new
        #: codes are counted in it; see ``with_limit``.
        self.window_limit, self.window_rare = np.inf, False
        self.vocabulary, self.limit, self.alarm_rate = vocabulary, limit, alarm_rate
        self.temperature, self.unknown_probability = temperature, unknown_probability
        self.tensors = tensors
        self._token_of: dict[float, int] | None = None
        self._network = FrozenEmbeddingLSTM(tensors, temperature, unknown_probability)
        self.version = self._hash()

    def initial(self, n: int) -> State:
        """Return the state of ``n`` new keys.

        h and c (n, layers, H), sums of the window (n, 6), recent tokens (n, 10).
        """
        recent = np.full((n, RECENT_EVENTS), -1, np.int32)
        return self._network.initial(n) | {"window": initial_window(n), "recent": recent}

    def step(self, state: State, events: Events) -> tuple[State, EventVerdicts]:
        """Advance the keys of ``events``, whose state is changed in place."""
        found = self.score(state, events)
        surprise = surprise_of(found)
        flag = surprise >= self.limit
        over = self.judge_window(state, events, found, flag)
        slow = (over >= 0) & ~flag
        surprise = np.where(slow, self.limit + np.where(slow, over, 0), surprise).astype(np.float32)
        cause = np.where(
            events.token == BOUNDARY,
            EventCause.MISSING_EVENT,
            np.where(events.token == UNKNOWN, EventCause.NEW_EVENT, EventCause.UNEXPECTED_EVENT),
        )
        cause = np.where(slow, EventCause.UNUSUAL_SEQUENCE, np.where(flag, cause, EventCause.NONE))
        return state, EventVerdicts(
            found.probability,
            surprise,
            flag | slow,
            cause.astype(np.uint8),
            found.top,
            found.top_probability,
            recent_tokens(state["recent"], events.slot, events.token),
        )

    def score(self, state: State, events: Events) -> EventProbabilities:
        """Advance the network and return the probabilities of the events.

        Of ``state`` only h and c are used and changed.
        """
        return self._network.score(self._network.step(state, events.slot, events.token), events.token)

    def judge_window(
        self,
        state: State,
        events: Events,
        found: EventProbabilities,
        flag: NDArray[np.bool_],
        limit: float | None = None,
    ) -> NDArray[np.float64]:
        """Return the evidence (N,) of the last events of each key over the limit.

        It is that after each event. From 0 on it is an alarm.

        Args:
            state: Its window is changed in place.
            events: The events.
            found: Their probabilities.
            flag: Events (N,) that are alarms by themselves.
            limit: Evidence of an alarm, in place of ``window_limit``.
        """
        left_out = events.token == UNKNOWN
        if self.window_rare:
            left_out &= flag
        rule = WindowRule(self.window_limit if limit is None else limit, self.window_rare, self.window_rare)
        return judge_window(state["window"], (events.slot, events.token), found, left_out, rule)

    def advance(self, state: State, events: Events) -> None:
        """Advance the network without a verdict."""
        self._network.step(state, events.slot, events.token)

    @property
    def size(self) -> tuple[int, int, int]:
        """Length of the vector of a code, hidden units, and layers."""
        return self.tensors["embedding.weight"].shape[1], self._network.hidden, self._network.layers

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and hidden units of the network."""
        return self._network.layers, self._network.hidden

    def with_limit(
        self,
        limit: float,
        alarm_rate: float,
        window_limit: float = np.inf,
        *,
        window_rare: bool = False,
    ) -> NextEventDetector:
        """Return a detector with other limits that shares this network.

        Args:
            limit: Surprise from which on an event is an alarm.
            alarm_rate: Share of ordinary sessions (or events) that reach the limit.
            window_limit: Evidence from which on the last events are an alarm.
            window_rare: Rare events, and new codes that are no alarm by themselves, are counted, too.
        """
        other = copy(self)
        other.limit, other.alarm_rate, other.window_limit = limit, alarm_rate, window_limit
        other.window_rare = window_rare
        other.version = other._hash()
        return other

    def with_templates(
        self, code_of: Mapping[str, str], templates: Iterable[tuple[str, str]]
    ) -> NextEventDetector:
        """Return a detector whose vocabulary has templates, as in ``Vocabulary``."""
        other = copy(self)
        other.vocabulary, other._token_of = Vocabulary(self.vocabulary.codes, code_of, templates), None
        return other

    def limit_at(self, alarm_rate: float) -> float:
        """Return the limit for another share of ordinary sessions (or events).

        A decade of rate is a decade of surprise, as in ``conformal_limit``.
        """
        return self.limit + float(np.log10(self.alarm_rate / alarm_rate))

    def save(self, path: str) -> str:
        """Write two files and return the digest. Raises ArtifactError."""
        return artifacts.save(path, self.tensors, self.manifest())

    def manifest(self) -> dict[str, Any]:
        """Return what a file needs beside the tensors."""
        return {
            "architecture": ARCHITECTURE,
            "codes": list(self.vocabulary.codes),
            "code_of": self.vocabulary.code_of,
            "templates": list(map(list, self.vocabulary.templates)),
            "limit": self.limit,
            "alarm_rate": self.alarm_rate,
            "temperature": self.temperature,
            "unknown_probability": self.unknown_probability,
        } | (
            {"window_limit": self.window_limit, "window_rare": self.window_rare}
            if np.isfinite(self.window_limit)
            else {}
        )

    def encode_numbers(self, codes: Sequence[str]) -> NDArray[np.int32]:
        """Return the token of each code by its number: a code may be given as its number."""
        if self._token_of is None:
            self._token_of = self.tokens_by_number()
        known = self._token_of
        return np.fromiter((known.get(code_number(code), UNKNOWN) for code in codes), np.int32)

    def tokens_by_number(self) -> dict[float, int]:
        """Return number → token of all codes, also of those for which another code stands."""
        codes = (*self.vocabulary.code_of, *self.vocabulary.codes)
        tokens = self.vocabulary.encode(codes).tolist()
        return dict(zip(map(code_number, codes), tokens, strict=True))

    @classmethod
    def load(cls, path: str, digest: str | None = None) -> NextEventDetector:
        """Read what ``save`` wrote.

        Raises ArtifactError if the files cannot be used.
        """
        saved = artifacts.load(path, digest)
        about = saved.manifest
        if about.get("architecture") != ARCHITECTURE:
            raise artifacts.ArtifactError(
                f"{path} is a {about.get('architecture')}, not an {ARCHITECTURE}: train a model of events"
            )
        names = ("limit", "alarm_rate", "temperature", "unknown_probability")
        numbers = {name: float(about[name]) for name in names if name in about}
        vocabulary = Vocabulary(about["codes"], about.get("code_of"), about.get("templates", ()))
        made = cls(vocabulary, dict(saved.tensors), **numbers)
        return made.with_limit(
            made.limit,
            made.alarm_rate,
            float(about.get("window_limit", np.inf)),
            window_rare=bool(about.get("window_rare", False)),
        )

    def _hash(self) -> str:
        numbers = (self.limit, self.temperature, self.unknown_probability)
        more = [self.window_limit] if np.isfinite(self.window_limit) else []
        more += [1.0] if self.window_rare else []
        digest = hashlib.sha256(repr((*numbers, *more)).encode())
        digest.update("\0".join(self.vocabulary.codes).encode())
        for name in sorted(self.tensors):
            digest.update(np.ascontiguousarray(self.tensors[name], np.float32).tobytes())
        return digest.hexdigest()[:16]


def surprise_of(found: EventProbabilities) -> NDArray[np.float32]:
    """Return −log10 of the p-value of each event (N,)."""
    return -np.log10(np.clip(found.p_value, MIN_P_VALUE, 1.0)).astype(np.float32)


def recent_tokens(state: Ints, slot: Ints, token: Ints) -> NDArray[np.int32]:
    """Return the tokens before each event (N, 10).

    ``state`` (S, 10) is updated in place. A boundary empties the list of its key.
    """
    out = np.empty((len(slot), RECENT_EVENTS), np.int32)
    shift_recent(state, slot, token, out)
    return out


@kernel
def shift_recent(state, slot, token, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the events before each event, and add it to those of its key.

    A boundary, 0, empties the list of its key.

    Args:
        state: Events before by key (S, 10), −1 for none; changed in place.
        slot: Key of each event (N,).
        token: Number of each event (N,).
        out: Events before each event (N, 10), written.
    """
    for row in range(len(slot)):
        recent = state[slot[row]]
        out[row] = recent
        if token[row] == BOUNDARY:
            recent[:] = -1
        else:
            for k in range(len(recent) - 1):
                recent[k] = recent[k + 1]
            recent[-1] = token[row]


def conformal_limit(surprises: NDArray[np.floating[Any]] | Sequence[float], rate: float) -> float:
    """Return the limit that a share of ``rate`` of the normal values reaches.

    It is the conformal quantile of ``surprises`` (n,) of normal data that were not used in the fit (Vovk et
    al., "Algorithmic learning in a random world", 2005). With fewer than 1 / ``rate`` values the tail is
    continued as that of a p-value: one decade of surprise for one decade of rate.
    """
    ordered = np.sort(np.asarray(surprises, np.float64))
    n = len(ordered)
    place = int(np.ceil((n + 1) * (1.0 - rate)))
    if place <= n:
        return float(np.nextafter(np.float32(ordered[place - 1]), np.float32(np.inf)))
    return float(ordered[-1] + np.log10(1.0 / (rate * (n + 1))))
