"""Vocabulary, network, detector and limit of sequences of events."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import artifacts
from detectors.sequences.detector import EventCause, Events, NextEventDetector, conformal_limit
from detectors.sequences.embedding_lstm import EmbeddingLSTM, EmbeddingLSTMConfig
from detectors.sequences.fit import fit_detector, unknown_probability
from detectors.sequences.vocabulary import BOUNDARY, FIRST_CODE, UNKNOWN, Vocabulary

TOKENS = 9


@pytest.fixture(scope="module")
def detector() -> NextEventDetector:
    torch.manual_seed(1)
    network = EmbeddingLSTM(EmbeddingLSTMConfig(TOKENS, embedding=5, hidden=6, layers=2))
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    return NextEventDetector(
        Vocabulary("abcdefg"), tensors, limit=1.2, temperature=1.3, unknown_probability=0.01
    )


@pytest.fixture(scope="module")
def rectangles() -> NextEventDetector:
    """A detector that learned that a square follows each rectangle."""
    rng = np.random.default_rng(0)
    return fit_detector([_ordered(rng) for _ in range(200)], size=(8, 16, 1))[0]


def _ordered(rng: np.random.Generator) -> list[str]:
    return [
        code
        for _ in range(rng.integers(3, 8))
        for code in (("rectangle", "square") if rng.random() < 0.5 else ("circle", "triangle"))
    ]


def run(detector: NextEventDetector, sessions: list[list[str]]):
    tokens = [np.r_[detector.vocabulary.encode(one), BOUNDARY].astype(np.int32) for one in sessions]
    slot = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(one) for one in tokens])
    return detector.step(detector.initial(len(tokens)), Events(slot, np.concatenate(tokens)))[1]


def test_the_classical_shape_has_164106_parameters():
    network = EmbeddingLSTM(EmbeddingLSTMConfig(1000, embedding=64, hidden=128, outputs=10))
    assert network.count_parameters() == 64_000 + 98_816 + 1_290 == 164_106
    logits, (hidden, cell) = network(torch.randint(0, 1000, (3, 7)))
    assert logits.shape == (3, 7, 10)
    assert hidden.shape == cell.shape == (1, 3, 128)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, TOKENS - 1)), min_size=1, max_size=60), st.data())
@settings(deadline=None, max_examples=60)
def test_batches_and_other_keys_change_nothing(detector, events, data):
    slot, token = (np.array(column, np.int32) for column in zip(*events, strict=True))
    _, whole = detector.step(detector.initial(4), Events(slot, token))
    cut = data.draw(st.integers(0, len(token)))
    state, parts = detector.initial(4), []
    for part in (slice(0, cut), slice(cut, None)):
        if len(token[part]):
            state, verdicts = detector.step(state, Events(slot[part], token[part]))
            parts.append(verdicts.surprise)
    assert np.allclose(np.concatenate(parts), whole.surprise, atol=1e-4)
    for key in range(4):
        own = slot == key
        if own.any():
            _, alone = detector.step(detector.initial(1), Events(np.zeros(own.sum(), np.int32), token[own]))
            assert np.allclose(alone.surprise, whole.surprise[own], atol=1e-4)
            assert np.array_equal(alone.recent, whole.recent[own])


def test_the_future_changes_no_verdict_of_the_past(detector):
    rng = np.random.default_rng(3)
    slot = rng.integers(0, 3, 200).astype(np.int32)
    token = rng.integers(0, TOKENS, 200).astype(np.int32)
    other = token.copy()
    other[120:] = rng.integers(0, TOKENS, 80)
    first, second = (detector.step(detector.initial(3), Events(slot, t))[1] for t in (token, other))
    assert np.allclose(first.surprise[:120], second.surprise[:120], atol=1e-5)
    assert not np.allclose(first.surprise[121:], second.surprise[121:], atol=1e-2)


def test_probabilities_are_those_of_torch(detector):
    network = EmbeddingLSTM(EmbeddingLSTMConfig(TOKENS, embedding=5, hidden=6, layers=2))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in detector.tensors.items()})
    tokens = [BOUNDARY, 3, 5, 2, 8, 8, BOUNDARY]
    with torch.no_grad():
        logits, _ = network(torch.tensor([tokens[:-1]]))
    logits[..., UNKNOWN] = -np.inf
    expected = torch.softmax(logits / 1.3, -1)[0].numpy() * 0.99
    _, verdicts = detector.step(
        detector.initial(1), Events(np.zeros(6, np.int32), np.array(tokens[1:], np.int32))
    )
    own = expected[np.arange(6), tokens[1:]]
    assert np.allclose(verdicts.probability, own, atol=1e-5)
    mass = [
        row[row <= p + 1e-9].sum() + (0.01 if p >= 0.01 else 0) for row, p in zip(expected, own, strict=True)
    ]
    assert np.allclose(10.0**-verdicts.surprise, mass, atol=1e-4)
    assert np.array_equal(verdicts.expected[:, 0], expected.argmax(1))
    assert verdicts.recent[3].tolist()[-3:] == [3, 5, 2]


def test_order_matters_where_counts_are_equal(rectangles):
    """The textbook case: a square after each rectangle; the other stream has the same counts."""
    usual = ["rectangle", "square", "circle", "triangle"] * 3
    swapped = ["square", "rectangle", "circle", "triangle"] * 3
    assert sorted(usual) == sorted(swapped)
    verdicts = run(rectangles, [usual, swapped])
    flagged = verdicts.flag.reshape(2, -1).any(axis=1)
    assert flagged.tolist() == [False, True]
    first = 13  # first event of the second session
    assert verdicts.cause[first] == EventCause.UNEXPECTED_EVENT
    assert {rectangles.vocabulary.text(t) for t in verdicts.expected[first, :2]} == {"rectangle", "circle"}


def test_missing_and_new_events(rectangles):
    verdicts = run(rectangles, [["circle", "triangle", "rectangle"], ["circle", "triangle", "pentagon"]])
    assert verdicts.cause[3] == EventCause.MISSING_EVENT
    assert rectangles.vocabulary.text(verdicts.expected[3, 0]) == "square"
    assert verdicts.expected_probability[3, 0] > 0.9
    assert verdicts.cause[6] == EventCause.NEW_EVENT


def test_saved_and_loaded(rectangles, tmp_path):
    digest = rectangles.save(str(tmp_path / "model"))
    loaded = NextEventDetector.load(str(tmp_path / "model"), digest)
    assert loaded.version == rectangles.version
    session = [["rectangle", "circle", "square"]]
    assert np.array_equal(run(loaded, session).surprise, run(rectangles, session).surprise)
    artifacts.save(str(tmp_path / "other"), {}, {"architecture": "shared_lstm"})
    with pytest.raises(artifacts.ArtifactError, match="not an embedding_lstm"):
        NextEventDetector.load(str(tmp_path / "other"))


def test_a_key_needs_at_most_two_kilobytes(rectangles):
    made = fit_detector([["a", "b"] * 5] * 30, sessions=False)[0]
    assert sum(array[0].nbytes for array in made.initial(3).values()) <= 2048


def test_the_limit_holds_its_rate_on_normal_values():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        limit = conformal_limit(-np.log10(rng.random(400)), 0.02)
        shares.append((-np.log10(rng.random(2000)) >= limit).mean())
    assert 0.015 < np.mean(shares) <= 0.021
    few = conformal_limit(-np.log10(np.linspace(0.01, 1, 100)), 1e-4)
    assert few == pytest.approx(2 + np.log10(1 / (1e-4 * 101)))


def test_a_vocabulary_keeps_the_most_frequent_codes():
    vocabulary = Vocabulary.learn("bbbaac", most=2)
    assert vocabulary.codes == ("b", "a")
    assert vocabulary.encode("abcb").tolist() == [FIRST_CODE + 1, FIRST_CODE, UNKNOWN, FIRST_CODE]
    with pytest.raises(ValueError, match="twice"):
        Vocabulary("aa")


def test_too_few_sequences_are_refused():
    with pytest.raises(ValueError, match="at least 20 sequences, there are 3"):
        fit_detector([["a"]] * 3)


def test_the_probability_of_a_new_code_is_the_share_of_those_seen_once():
    from collections import Counter

    assert unknown_probability(Counter("aab")) == pytest.approx(1.5 / 4)
