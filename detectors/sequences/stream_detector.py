"""Detector of a stream of events, with the protocol of every detector.

A point has one value, the number of the code of its event (``detectors.sequences.code_numbers``), or that of
the end of a session. Without a model every event is unremarkable; the events before are kept all the same, so
that a model that comes later continues from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, FORECASTERS, DetectorSpec, Points, State, Verdicts
from detectors.channel_batch import Ints
from detectors.sequences.code_numbers import END_NUMBER, code_numbers, number_text
from detectors.sequences.detector import RECENT_EVENTS, Events, NextEventDetector, shift_recent
from detectors.sequences.frozen_lstm import TOP_EVENTS, EventProbabilities
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN
from detectors.sequences.window import initial_window

#: Channel of a stream of events.
EVENT_CHANNEL: Final = "event"
NO_EVENT: Final = -1.0  # in the list of recent events
#: Layers and units of the state before there is a model.
DEFAULT_SHAPE: Final = (1, 64)
NO_MODEL: Final = "no-model"
#: Begins the state version.
STATE_FORM: Final = "events-3-"
#: Earlier forms, with the number of sums of a window.
FORMER_STATE_FORMS: Final = {"events-2-": 2, "events-1-": 0}
UNUSUAL_SEQUENCE: Final = np.uint8(CAUSES.index("unusual_sequence"))

_CAUSE_OF_TOKEN: Final = {BOUNDARY: "missing_event", UNKNOWN: "new_event"}


class EventStreamDetector:
    """Next-event network of one stream, its alarm rate, and the events before.

    The surprise is calibrated: the limit of the model, which a share ``alarm_rate`` of the ordinary sessions
    or events reaches, is −log10 of this share.
    """

    def __init__(self, spec: DetectorSpec, model: NextEventDetector | None, top_k: int | None = None) -> None:
        """Use a model with an alarm rate.

        Args:
            spec: Alarm rate.
            model: The network and its limit; None: no event is an alarm.
            top_k: An event that is not among so many most probable ones is an alarm, too.
        """
        self.spec, self.model, self.top_k = spec, model, top_k
        layers, hidden = DEFAULT_SHAPE if model is None else model.shape
        self._shape = layers, hidden
        rank = "" if top_k is None else f"-top{top_k}"
        self.version = NO_MODEL if model is None else f"{model.version}-{spec.alarm_rate:g}{rank}"
        self.weights = NO_MODEL if model is None else model.version
        self.state_version = f"{STATE_FORM}{layers}x{hidden}"
        self._limit = np.inf if model is None else model.limit_at(spec.alarm_rate)
        self._window_limit = np.inf if model is None else model.window_limit + self._limit - model.limit
        self._alarm_surprise = -np.log10(spec.alarm_rate)
        codes = code_numbers(() if model is None else model.vocabulary.codes)
        by_number = {} if model is None else dict(sorted(model.tokens_by_number().items()))
        self._numbers = np.array(list(by_number), np.float64)
        self._tokens = np.array(list(by_number.values()), np.int32)
        #: Number by token; that of the unknown token is no code's.
        self._number_of = np.concatenate([[END_NUMBER, NO_EVENT], codes])

    def initial(self, n: int) -> State:
        """Return the state of ``n`` new series.

        h and c (n, layers, H) float32, window (n, 6) float64, recent (n, 10) float64: numbers of the codes
        before, −1 for none.
        """
        if self.model is None:
            state: State = {name: np.zeros((n, *self._shape), np.float32) for name in ("h", "c")}
        else:
            state = {name: self.model.initial(n)[name] for name in ("h", "c")}
        return state | {"window": initial_window(n), "recent": np.full((n, RECENT_EVENTS), NO_EVENT)}

    def convert_state(self, version: str, rows: State) -> State | None:
        """Return rows of a version whose windows have fewer sums in this form."""
        for form, sums in FORMER_STATE_FORMS.items():
            if version == self.state_version.replace(STATE_FORM, form):
                window = initial_window(len(rows["recent"]))
                window[:, :sums] = rows["window"] if sums else 0.0
                return rows | {"window": window}
        return None

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        """Judge the events and advance their series; ``state`` is changed in place."""
        numbers = np.ascontiguousarray(points.values[:, 0])
        recent = np.empty((len(numbers), RECENT_EVENTS))
        shift_recent(state["recent"], points.slot, numbers, recent)
        if self.model is None:
            return state, _unremarkable(recent)
        token = self.tokens(numbers)
        events = Events(points.slot, token)
        found = self.model.score(state, events)
        surprise = -np.log10(np.maximum(found.p_value, np.finfo(np.float32).tiny)).astype(np.float32)
        verdicts = _unremarkable(recent)
        verdicts.flag = surprise >= self._limit
        shift = self._alarm_surprise - self._limit
        verdicts.surprise = np.maximum(surprise + np.float32(shift), 0.0).astype(np.float32)
        if self.top_k is not None:
            unranked = found.rank >= self.top_k
            verdicts.flag |= unranked
            least = np.where(unranked, self._alarm_surprise, 0.0)
            verdicts.surprise = np.maximum(verdicts.surprise, least).astype(np.float32)
        verdicts.cause = np.where(verdicts.flag, _causes(token), 0).astype(np.uint8)
        self._judge_last_events(state, events, found, verdicts)
        verdicts.probability = found.probability
        verdicts.score = (1.0 - 10.0 ** -verdicts.surprise.astype(np.float64)).astype(np.float32)
        verdicts.forecaster[:] = FORECASTERS.index("next_event")
        verdicts.contribution[:] = 1.0
        verdicts.likely, verdicts.likely_probability = self._number_of[found.top], found.top_probability
        return state, verdicts

    def _judge_last_events(
        self, state: State, events: Events, found: EventProbabilities, verdicts: Verdicts
    ) -> None:
        """Flag the events, in place, whose last events together are too improbable.

        Where they nearly are, the surprise says so, so that an open anomaly goes on.
        """
        assert self.model is not None
        over = self.model.judge_window(state, events, found, verdicts.flag, self._window_limit)
        slow = (over >= 0) & ~verdicts.flag
        verdicts.flag |= slow
        verdicts.cause[slow] = UNUSUAL_SEQUENCE
        if self.model.window_rare:
            slow = ~verdicts.flag | slow
        together = (self._alarm_surprise + over[slow]).astype(np.float32)
        verdicts.surprise[slow] = np.maximum(verdicts.surprise[slow], together)

    def tokens(self, numbers: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the number of the vocabulary of each code (N,)."""
        at = np.searchsorted(self._numbers, numbers)
        token = np.full(len(numbers), UNKNOWN, np.int32)
        inside = np.flatnonzero(at < len(self._numbers))
        known = inside[self._numbers[at[inside]] == numbers[inside]]
        token[known] = self._tokens[at[known]]
        token[numbers == END_NUMBER] = BOUNDARY
        return token

    def code_text(self, number: float) -> str:
        """Return the code of a number, or the number itself if it is not known."""
        token = int(self.tokens(np.array([number]))[0])
        if self.model is None or token == UNKNOWN:
            return number_text(number)
        return self.model.vocabulary.text(token)

    def on_weights_changed(self, state: State) -> None:
        """Continue the sessions of ``state`` with this model, by the last events of each."""
        fresh = self.initial(1)
        for name in ("h", "c"):
            state[name][:] = fresh[name]
        state["window"][:] = 0
        if self.model is None:
            return
        slot, place = np.nonzero(state["recent"] != NO_EVENT)
        numbers = state["recent"][slot, place]
        self.model.advance(state, Events(slot.astype(np.int32), self.tokens(numbers)))

    def register_series(self, state: State, slots: NDArray[np.int32], names: Iterable[str]) -> None:
        """Do nothing: no part of the model belongs to single series."""


def _causes(token: Ints) -> NDArray[np.uint8]:
    """Return the cause (N,) of an alarm at each token."""
    found = np.full(len(token), CAUSES.index("unexpected_event"), np.uint8)
    for special, cause in _CAUSE_OF_TOKEN.items():
        found[token == special] = CAUSES.index(cause)
    return found


def _unremarkable(recent: NDArray[np.float64]) -> Verdicts:
    n = len(recent)
    nothing = np.full((n, 1), np.nan, np.float32)
    return Verdicts(
        score=np.zeros(n, np.float32),
        surprise=np.zeros(n, np.float32),
        flag=np.zeros(n, np.bool_),
        expected=nothing,
        lower=nothing.copy(),
        upper=nothing.copy(),
        contribution=np.zeros((n, 1), np.float32),
        forecaster=np.zeros(n, np.uint8),
        cause=np.zeros(n, np.uint8),
        probability=np.full(n, np.nan, np.float32),
        likely=np.full((n, TOP_EVENTS), NO_EVENT),
        likely_probability=np.zeros((n, TOP_EVENTS), np.float32),
        recent=recent,
    )
