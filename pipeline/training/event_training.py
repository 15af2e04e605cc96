"""One training of a stream of events: events in, a model and its evidence out.

The newest fifth of the sessions is held out of the fit and judged by the new model, the champion and the
frequencies of the codes alone. Sessions with a quarantined event are not learned from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.sequences.code_numbers import END_NUMBER, number_text
from detectors.sequences.detector import NextEventDetector, surprise_of
from detectors.sequences.fit import (
    CONTEXT_EVENTS,
    DEFAULT_SIZE,
    PIECE_EVENTS,
    Piece,
    fit_detector,
    joined_events,
)
from detectors.sequences.training import frame
from pipeline.training.dataset import HELD_BACK, TrainingData
from pipeline.training.promotion_rule import PromotionDecision

#: Most events that a training learns from, the newest.
MAX_EVENTS: Final = 500_000
MIN_SESSIONS: Final = 50
FIRST_MODEL: Final = "the first model of the stream: before it no event was an alarm"
#: Share by which the error of a held-out event must be smaller than the champion's.
MIN_GAIN: Final = 0.01
#: Least such difference in nats: where an order is certain, both errors are next to 0.
MIN_GAIN_NATS: Final = 0.005
#: Share of held-out sessions with an alarm over the configured rate from which a model is refused.
MAX_ALARM_RATIO: Final = 3.0
MIN_ALARMS: Final = 5


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """Share of ordinary sessions (or events) that may raise an alarm.

    ended: the sessions have ends that are judged.
    """

    ended: bool
    rate: float


@dataclass(frozen=True, slots=True)
class EventJudgement:
    """Figures of a model on held-out sessions.

    nats: mean −log probability of an event. alarms: share of sessions with an alarm.
    """

    nats: float
    alarms: float


@dataclass(frozen=True, slots=True)
class EventCard:
    """Evidence about a new model of events.

    frequencies: nats of an event by the frequencies of the codes alone, which know no order.
    """

    sessions: int
    held_out: int
    events: int
    codes: int
    alarm_rate: float
    challenger: EventJudgement
    champion: EventJudgement | None
    frequencies: float

    def decision(self) -> PromotionDecision:
        """Return whether the new model should replace the champion."""
        against, in_favour = [], []
        new, old = self.challenger, self.champion
        most = max(MAX_ALARM_RATIO * self.alarm_rate, MIN_ALARMS / max(self.held_out, 1))
        if new.alarms > most:
            against.append(f"alarms in {new.alarms:.1%} of the held-out sessions (at most {most:.1%})")
        if new.nats > self.frequencies:
            against.append("the order of the events says less than their frequencies")
        if old is None:
            in_favour.append("the stream has no model")
        elif new.nats - old.nats > max(MIN_GAIN * old.nats, MIN_GAIN_NATS):
            against.append(f"{new.nats:.3f} nats an event, the champion {old.nats:.3f}")
        elif old.nats - new.nats > max(MIN_GAIN * old.nats, MIN_GAIN_NATS):
            in_favour.append(f"{new.nats:.3f} nats an event, the champion {old.nats:.3f}")
        return PromotionDecision(bool(in_favour) and not against, tuple(against), tuple(in_favour))

    @property
    def reason(self) -> str:
        """The decision in one sentence."""
        decision = self.decision()
        return FIRST_MODEL if decision.promote and self.champion is None else decision.reason

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, the decision and a text for people, as plain JSON."""
        decision = self.decision()
        figures: dict[str, Any] = {
            "sessions": self.sessions,
            "held_out": self.held_out,
            "events": self.events,
            "codes": self.codes,
            "challenger": {"nats": self.challenger.nats, "alarms": self.challenger.alarms},
            "frequencies": self.frequencies,
            "promote": decision.promote,
            "reason": self.reason,
        }
        if self.champion is not None:
            figures["champion"] = {"nats": self.champion.nats, "alarms": self.champion.alarms}
        return figures | {"text": self.text()}

    def text(self) -> str:
        """Return a table of both models and the decision."""
        rows = [("challenger", self.challenger), ("champion", self.champion)]
        lines = [f"{self.sessions} sessions, {self.held_out} of them held out; {self.codes} codes"]
        lines += ["model         nats an event  sessions with an alarm"]
        lines += [f"{name:13s} {one.nats:13.3f} {one.alarms:23.2%}" for name, one in rows if one is not None]
        lines += [f"frequencies   {self.frequencies:13.3f}", f"{self.reason[0].upper()}{self.reason[1:]}."]
        return "\n".join(lines)


def sessions_of(
    data: TrainingData, *, sessions: bool, name_of: Mapping[float, str] | None = None
) -> list[Piece]:
    """Return the sessions without a quarantined event, the oldest first.

    An unfinished session is left out. Without ``sessions`` the events of a series are cut into parts, each
    with the events before it, back to the last quarantined one.
    ``name_of`` has the codes of the numbers; others are given as their number.
    """
    known = name_of or {}
    found: list[tuple[int, Piece]] = []
    for first, end in zip(data.first[:-1].tolist(), data.first[1:].tolist(), strict=True):
        numbers, allowed = data.values[first:end, 0], data.allowed[first:end]
        ends = np.flatnonzero(numbers == END_NUMBER) if sessions else _cuts(len(numbers))
        begin = context = 0
        for stop in ends.tolist():
            if stop > begin and allowed[begin:stop].all():
                codes, before = (
                    [known.get(number) or number_text(number) for number in part[part != END_NUMBER].tolist()]
                    for part in (numbers[begin:stop], numbers[max(context, begin - CONTEXT_EVENTS) : begin])
                )
                found.append((int(data.time[first + stop - 1]), Piece(codes, before)))
            else:
                context = stop
            begin = stop + 1 if sessions else stop
            context = begin if sessions else context
    found.sort(key=lambda one: one[0])
    return _newest([piece for _, piece in found])


def train_events(
    sessions: Sequence[Piece],
    champion: NextEventDetector | None,
    rule: AlarmRule,
    *,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> tuple[NextEventDetector, EventCard]:
    """Fit a model to the older sessions, and judge it and the champion on the newest.

    Args:
        sessions: Sessions, the oldest first.
        champion: The model in use, None if there is none.
        rule: Alarms that ordinary sessions may raise.
        seed: Seed of the training.
        on_epoch: Called after each pass over the sessions.

    Raises:
        ValueError: there are too few sessions.
    """
    if len(sessions) < MIN_SESSIONS:
        events = sum(len(one.codes) for one in sessions)
        raise ValueError(
            f"a training needs {MIN_SESSIONS} sessions, the history has {len(sessions)}"
            if rule.ended
            else f"a training needs {MIN_SESSIONS * PIECE_EVENTS:,} events, the history has {events:,}"
        )
    kept = len(sessions) - max(1, round(HELD_BACK * len(sessions)))
    learned, held_out = sessions[:kept], sessions[kept:]
    size = DEFAULT_SIZE if champion is None else champion.size
    model, _ = fit_detector(
        learned, sessions=rule.ended, alarm_rate=rule.rate, size=size, seed=seed, on_epoch=on_epoch
    )
    return model, judge(model, champion, learned, held_out, rule)


def judge(
    model: NextEventDetector,
    champion: NextEventDetector | None,
    learned: Sequence[Piece],
    held_out: Sequence[Piece],
    rule: AlarmRule,
) -> EventCard:
    """Return the evidence card of a model.

    Args:
        model: The new model.
        champion: The model in use, None if there is none.
        learned: Older sessions.
        held_out: The sessions to judge.
        rule: Alarms that ordinary sessions may raise.
    """
    return EventCard(
        sessions=len(learned) + len(held_out),
        held_out=len(held_out),
        events=sum(len(one.codes) for one in [*learned, *held_out]),
        codes=len(model.vocabulary.codes),
        alarm_rate=rule.rate,
        challenger=_judged(model, held_out, rule),
        champion=None if champion is None else _judged(champion, held_out, rule),
        frequencies=_nats_of_frequencies(learned, held_out, rule.ended),
    )


def _cuts(n: int) -> NDArray[np.int64]:
    return np.append(np.arange(PIECE_EVENTS, n, PIECE_EVENTS), n)


def _newest(sessions: list[Piece]) -> list[Piece]:
    """Return the newest sessions with ``MAX_EVENTS`` events at most."""
    lengths = np.cumsum([len(one.codes) for one in reversed(sessions)])
    return sessions[len(sessions) - int(np.searchsorted(lengths, MAX_EVENTS, side="right")) :]


def _judged(model: NextEventDetector, sessions: Sequence[Piece], rule: AlarmRule) -> EventJudgement:
    events, own = joined_events(
        [
            frame(model.encode_numbers(one.codes), rule.ended, model.encode_numbers(one.before))
            for one in sessions
        ]
    )
    state = model.initial(len(sessions))
    found, limit = model.score(state, events), model.limit_at(rule.rate)
    flag = surprise_of(found) >= limit
    flag |= model.judge_window(state, events, found, flag, model.window_limit + limit - model.limit) >= 0
    alarms = len(np.unique(events.slot[flag])) / len(sessions) if rule.ended else float(flag[own].mean())
    nats = -np.log(np.maximum(found.probability, 1e-30))
    return EventJudgement(float(nats[own].mean()), alarms)


def _nats_of_frequencies(learned: Sequence[Piece], held_out: Sequence[Piece], ended: bool) -> float:
    end = [""] if ended else []
    counts = Counter(code for one in learned for code in [*one.codes, *end])
    total = sum(counts.values()) + len(counts) + 1.0
    nats = [-math.log((counts[code] + 1.0) / total) for one in held_out for code in [*one.codes, *end]]
    return float(np.mean(nats))
