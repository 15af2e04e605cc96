"""A slow shift of order: each step is mildly improbable, the last events together are not."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec
from detectors.base import CAUSES, Points
from detectors.sequences.code_numbers import code_numbers
from detectors.sequences.detector import EventCause, Events, NextEventDetector
from detectors.sequences.fit import fit_detector, pieces_of
from detectors.sequences.stream_detector import STATE_FORM, EventStreamDetector
from detectors.sequences.vocabulary import BOUNDARY
from detectors.sequences.window import DECAY, WINDOW_EVENTS, WindowRule, initial_window, judge_window
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


def ordinary_log(rng: np.random.Generator, lines: int) -> list[str]:
    """Return codes in no order; g is rare."""
    return rng.choice(list("abcdefg"), lines, p=(0.295, 0.2, 0.2, 0.1, 0.1, 0.1, 0.005)).tolist()


@pytest.fixture(scope="module")
def growing() -> tuple[NextEventDetector, np.random.Generator]:
    """A model of a log without sessions in which a code in fifty is seen once, and random numbers."""
    rng = np.random.default_rng(5)
    learned = ordinary_log(rng, 2000)
    for number, at in enumerate(range(40, 2000, 50)):
        learned[at] = f"once {number}"
    return fit_detector(pieces_of(learned), sessions=False, size=(8, 16, 1))[0], rng


def bound(x: float, variance: float, most: float) -> float:
    """Return Freedman's evidence, in decades."""
    return max(x, 0) ** 2 / (2 * (variance + most * max(x, 0) / 3)) / np.log(10)


def test_the_evidence_is_that_of_the_bound_and_ends_with_the_session(model: NextEventDetector) -> None:
    codes = session(np.random.default_rng(1), SHIFTED, SHIFTED)[:6]
    token = np.r_[model.vocabulary.encode(codes), BOUNDARY, model.vocabulary.encode(codes[:1])].astype(
        np.int32
    )
    slot = np.zeros(len(token), np.int32)
    found = model.score(model.initial(1), Events(slot, token))
    state = initial_window(1)
    none = np.zeros(len(token), np.bool_)
    evidence = 2.0 + judge_window(state, (slot, token), found, none, WindowRule(2.0, rare=True, level=True))
    former = WindowRule(0.0, rare=False, level=False)
    likelihood = judge_window(initial_window(1), (slot, token), found, none, former)
    weight = DECAY ** np.arange(6, -1, -1.0)
    x, v = weight @ found.excess[:7], weight**2 @ found.variance[:7]
    assert likelihood[6] == pytest.approx(bound(x, v, 5.0), rel=1e-5)
    rare, rare_v = weight @ found.rare[:7], weight**2 @ found.rare_variance[:7]
    assert evidence[6] == pytest.approx(max(bound(x, v, 5.0), bound(rare, rare_v, 1.0)), rel=1e-5)
    first = [found.excess[7], found.variance[7], found.rare[7], found.rare_variance[7], 0.0, 0.0]
    assert state[0] == pytest.approx(first, rel=1e-6)


def test_a_change_that_stays_is_told_once_and_again_after_an_ordinary_time(
    growing: tuple[NextEventDetector, np.random.Generator],
) -> None:
    model, rng = growing
    changed = [code.upper() if rng.random() < 0.5 else code for code in ordinary_log(rng, 600)]
    codes = [*ordinary_log(rng, 100), *changed, *ordinary_log(rng, 3000), *changed]
    token = model.vocabulary.encode(codes)
    slow = model.step(model.initial(1), Events(np.zeros(len(token), np.int32), token))[1].flag
    assert 0 < slow[100:700].sum() <= 2 * WINDOW_EVENTS
    assert slow[100:130].any(), "soon"
    assert not slow[:100].any()
    assert not slow[800:3700].any()
    assert slow[3700:].any()


def test_a_burst_of_a_rare_and_of_a_new_code_is_found_though_one_of_them_is_no_alarm(
    growing: tuple[NextEventDetector, np.random.Generator],
) -> None:
    model, rng = growing
    for code in ("never seen", "g"):
        for count, found in ((1, False), (20, True)):
            codes = [*ordinary_log(rng, 100), *[code] * count]
            token = model.vocabulary.encode(codes)
            verdicts = model.step(model.initial(1), Events(np.zeros(len(token), np.int32), token))[1]
            assert verdicts.flag.any() == found, (code, count)
            assert set(verdicts.cause[verdicts.flag].tolist()) <= {EventCause.UNUSUAL_SEQUENCE}


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
    first = {name: array for name, array in detector.initial(3).items() if name != "window"}
    second = first | {"window": np.arange(6.0).reshape(3, 2)}
    assert detector.convert_state("events-1-9x9", first) is None
    for form, former in (("events-1-", first), ("events-2-", second)):
        moved = detector.convert_state(detector.state_version.replace(STATE_FORM, form), former)
        assert moved is not None
        assert {name: array.shape for name, array in moved.items()} == {
            name: array.shape for name, array in detector.initial(3).items()
        }
        np.testing.assert_array_equal(moved["window"][:, :2], former.get("window", 0.0))
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
