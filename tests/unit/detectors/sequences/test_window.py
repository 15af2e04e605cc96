"""A slow shift of order: each step is mildly improbable, the last events together are not."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec
from detectors.base import CAUSES, Points
from detectors.sequences.code_numbers import code_numbers
from detectors.sequences.detector import EventCause, Events, NextEventDetector
from detectors.sequences.fit import fit_detector
from detectors.sequences.stream_detector import FORMER_STATE_FORM, STATE_FORM, EventStreamDetector
from detectors.sequences.vocabulary import BOUNDARY
from detectors.sequences.window import DECAY, initial_window, window_evidence
from pipeline.core.event_text import event_statement

#: Each step goes to one of three codes; the second and the third are rarer.
USUAL, SHIFTED = (0.8, 0.12, 0.08), (0.3, 0.4, 0.3)


def session(rng: np.random.Generator, first: tuple[float, ...], then: tuple[float, ...]) -> list[str]:
    """Return 80 events, whose choices change in the middle."""
    state, codes = 0, []
    for step in range(80):
        state = (3 * state + rng.choice(3, p=first if step < 40 else then) + 1) % 9
        codes.append("abcdefghi"[state])
    return codes


@pytest.fixture(scope="module")
def model() -> NextEventDetector:
    rng = np.random.default_rng(0)
    return fit_detector([session(rng, USUAL, USUAL) for _ in range(300)], size=(8, 24, 1))[0]


def verdicts_of(model: NextEventDetector, sessions: list[list[str]]):
    tokens = [np.r_[model.vocabulary.encode(one), BOUNDARY].astype(np.int32) for one in sessions]
    slot = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(one) for one in tokens])
    events = Events(slot, np.concatenate(tokens))
    return slot, model.step(model.initial(len(tokens)), events)[1]


def test_a_slow_shift_is_found_by_the_window_alone(model: NextEventDetector) -> None:
    rng = np.random.default_rng(7)
    found = {}
    for name, then in (("usual", USUAL), ("shifted", SHIFTED)):
        slot, verdicts = verdicts_of(model, [session(rng, USUAL, then) for _ in range(200)])
        slow = verdicts.cause == EventCause.UNUSUAL_SEQUENCE
        found[name] = len(np.unique(slot[slow])), len(np.unique(slot[verdicts.flag & ~slow]))
        assert (verdicts.surprise[slow] >= model.limit).all()
    assert found["shifted"][0] >= 90, found
    assert found["shifted"][1] <= 40, "the rule of single events does not see them"
    assert found["usual"][0] <= 4
    assert sum(found["usual"]) <= 12


def test_the_sums_have_about_the_mean_and_the_variance_that_the_model_states(
    model: NextEventDetector,
) -> None:
    rng = np.random.default_rng(9)
    tokens = [np.r_[model.vocabulary.encode(session(rng, USUAL, USUAL))] for _ in range(100)]
    slot = np.repeat(np.arange(100, dtype=np.int32), 80)
    found = model.score(model.initial(100), Events(slot, np.concatenate(tokens).astype(np.int32)))
    assert abs(found.excess.mean()) < 0.1
    assert found.excess.var() == pytest.approx(
        found.variance.mean(), rel=0.35
    )  # few sessions: its temperature is above 1


def test_the_evidence_is_that_of_the_bound_and_ends_with_the_session(model: NextEventDetector) -> None:
    codes = session(np.random.default_rng(1), SHIFTED, SHIFTED)[:6]
    token = np.r_[model.vocabulary.encode(codes), BOUNDARY, model.vocabulary.encode(codes[:1])].astype(
        np.int32
    )
    slot = np.zeros(len(token), np.int32)
    found = model.score(model.initial(1), Events(slot, token))
    state = initial_window(1)
    evidence = window_evidence(state, slot, token, found)
    weight = DECAY ** np.arange(6, -1, -1.0)
    x, v = weight @ found.excess[:7], weight**2 @ found.variance[:7]
    assert evidence[6] == pytest.approx(max(x, 0) ** 2 / (2 * (v + 5 * max(x, 0) / 3)) / np.log(10), rel=1e-5)
    assert state[0] == pytest.approx([found.excess[7], found.variance[7]], rel=1e-6)


def stream_verdicts(detector: EventStreamDetector, codes: list[str], cuts: list[int]):
    numbers = code_numbers(codes)[:, None]
    state, flags, surprises, causes = detector.initial(1), [], [], []
    for a, b in zip([0, *cuts], [*cuts, len(codes)], strict=True):
        n = b - a
        points = Points(
            np.zeros(n, np.int32), np.arange(a, b), numbers[a:b], np.zeros(n, np.int32), np.zeros(n, np.int64)
        )
        state, found = detector.step(state, points)
        flags += found.flag.tolist()
        surprises += found.surprise.tolist()
        causes += found.cause.tolist()
    return flags, surprises, causes


def test_batches_change_nothing_and_the_stream_names_the_cause(model: NextEventDetector) -> None:
    codes = session(np.random.default_rng(3), USUAL, SHIFTED) + session(
        np.random.default_rng(4), SHIFTED, SHIFTED
    )
    detector = EventStreamDetector(DetectorSpec(tier="events", channels=("event",), alarm_rate=0.01), model)
    whole = stream_verdicts(detector, codes, [])
    assert stream_verdicts(detector, codes, [1, 2, 30, 55, 70]) == whole
    flags, surprises, causes = (np.array(one) for one in whole)
    slow = causes == CAUSES.index("unusual_sequence")
    assert slow.any()
    assert (surprises[slow] >= 2).all()
    assert flags[slow].all()


def test_a_state_of_before_goes_on_and_a_model_of_before_has_no_rule(
    model: NextEventDetector, tmp_path
) -> None:
    spec = DetectorSpec(tier="events", channels=("event",), alarm_rate=0.01)
    detector = EventStreamDetector(spec, model)
    former = {name: array for name, array in detector.initial(3).items() if name != "window"}
    version = detector.state_version.replace(STATE_FORM, FORMER_STATE_FORM)
    assert detector.convert_state("events-1-9x9", former) is None
    moved = detector.convert_state(version, former)
    assert moved is not None
    assert {name: array.shape for name, array in moved.items()} == {
        name: array.shape for name, array in detector.initial(3).items()
    }
    without = model.with_limit(model.limit, model.alarm_rate)
    assert "window_limit" not in without.manifest()
    without.save(str(tmp_path / "former"))
    loaded = NextEventDetector.load(str(tmp_path / "former"))
    assert loaded.version == without.version
    _, verdicts = verdicts_of(loaded, [session(np.random.default_rng(3), USUAL, SHIFTED)])
    assert not (verdicts.cause == EventCause.UNUSUAL_SEQUENCE).any()
    model.save(str(tmp_path / "now"))
    assert NextEventDetector.load(str(tmp_path / "now")).window_limit == model.window_limit


def test_the_sentence() -> None:
    said = event_statement("unusual_sequence", "c", 0.11, ["a", "b"], [("d", 0.8)])
    assert said == (
        "many of the last events are each a little unusual, and so many together are rare; the last: "
        "“c” came after “a”, “b”, as it does in 11 % of cases; usual here: “d” (80 % of cases)"
    )
