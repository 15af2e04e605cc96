"""Accuracy metrics against published implementations (a golden file), slow re-statements and cases worked
out by hand.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate import nab
from pipeline.evaluate.accuracy_metrics import (
    Events,
    Rows,
    average_precision,
    count_events,
    count_rows,
    mean_by,
    recording,
    segments,
    ucr_hit,
)
from pipeline.evaluate.vus import find_length, vus_pr
from tests.unit.evaluate.golden.vus_pr import series

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vus_pr.json").read_text())


def bits(text: str) -> np.ndarray:
    return np.array([mark == "1" for mark in text])


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: str(golden["case"]))
def test_vus_pr_equals_the_published_implementation(golden):
    values, label, score = series(golden["case"])
    assert find_length(values) == golden["window"]
    assert vus_pr(score, label, golden["window"]) == pytest.approx(golden["VUS-PR"], abs=1e-12)
    assert average_precision(score, label) == pytest.approx(golden["AUC-PR"], abs=1e-12)


def test_the_golden_cases_tell_scores_apart():
    assert len({round(golden["VUS-PR"], 6) for golden in GOLDEN}) == len(GOLDEN)


def test_vus_pr_of_a_perfect_score_is_near_one_and_without_labels_is_nan():
    label = np.zeros(1000, bool)
    label[500:600] = True
    assert vus_pr(label.astype(float), label, 0) == pytest.approx(1.0)
    assert math.isnan(vus_pr(np.ones(10), np.zeros(10, bool), 3))


def test_find_length_of_a_constant_and_of_a_sine():
    assert find_length(np.ones(500)) == 125
    assert find_length(np.sin(np.arange(2000) * 2 * np.pi / 50)) == 50


def test_segments_join_over_quiet_rows():
    mask = bits("0110010011")
    assert segments(mask).tolist() == [[1, 2], [5, 5], [8, 9]]
    assert segments(mask, quiet=1).tolist() == [[1, 2], [5, 5], [8, 9]]
    assert segments(mask, quiet=2).tolist() == [[1, 9]]
    assert segments(np.zeros(3, bool)).shape == (0, 2)


def test_average_precision_takes_ties_together():
    assert average_precision(np.ones(10), bits("1000000000")) == pytest.approx(0.1)
    assert average_precision(np.array([3.0, 2.0, 1.0]), bits("101")) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_events_are_counted_without_point_adjustment():
    #                     event     event       alarm right, one false alarm
    label = bits("0000111100000000001100000000")
    flag = bits("0000001000000000000000001010")
    events = count_events(flag, label)
    assert events == Events(
        events=2, found=1, alarms=2, right=1, rows=28, normal_rows=22, alarm_rows=3, delays=(2,)
    )
    assert (events.precision, events.recall, events.f1, events.median_delay) == (0.5, 0.5, 0.5, 2.0)
    assert events.false_per_10k == pytest.approx(1e4 / 22)
    total = events + events
    assert (total.events, total.delays, total.alarm_share) == (4, (2, 2), 6 / 56)


def test_always_in_alarm_shows_in_the_share_of_rows():
    events = count_events(np.ones(20, bool), bits("00100000000001000000"))
    assert events.f1 == 1.0
    assert events.alarm_share == 1.0


def test_silence_scores_zero():
    events = count_events(np.zeros(5, bool), bits("01010"))
    assert (events.f1, events.false_per_10k) == (0.0, 0.0)
    assert math.isnan(events.median_delay)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.integers(0, 3))
def test_events_agree_with_a_slow_count(rows, quiet):
    flag, label = np.array(rows).T
    events = count_events(flag, label, quiet)
    truth, alarms = segments(label), segments(flag, quiet)
    assert events.found == sum(flag[a : b + 1].any() for a, b in truth)
    assert events.right == sum(label[a : b + 1].any() for a, b in alarms)
    assert list(events.delays) == [int(np.argmax(flag[a : b + 1])) for a, b in truth if flag[a : b + 1].any()]


def test_skab_counts_rows_over_all_files():
    rows = count_rows(bits("1100"), bits("1010")) + count_rows(bits("0000"), bits("0000"))
    assert rows == Rows(tp=1, fp=1, tn=5, fn=1)
    assert (rows.f1, rows.far, rows.mar) == (0.5, 1 / 6, 0.5)


def test_ucr_hit_within_the_slack_and_never_in_the_training_part():
    label = np.zeros(1000, bool)
    label[500:510] = True
    score = np.zeros(1000)
    score[50] = 9.0
    score[609] = 1.0
    assert ucr_hit(score, label, 100)
    assert not ucr_hit(score, label, 0)
    score[[609, 610]] = 0.0, 1.0
    assert not ucr_hit(score, label, 100)


def test_recordings_group_copies_and_count_once():
    names = ["DISTORTEDECG1", "ECG2", "NOISEECG4", "GP711MarkerLFM5z1", "CHARISfive"]
    assert [recording(name) for name in names] == ["ECG", "ECG", "ECG", "GP711MarkerLFM5z", "CHARISfive"]
    assert mean_by(["a", "a", "b"], [1, 0, 1]) == pytest.approx(0.75)


# ---------------------------------------------------------------------------------------------------------------- NAB


def slow_nab(scores, windows, threshold, profile):
    """The official rules row by row, unnormalised: value of all detections at ``threshold``, −fn for a window
    without one.
    """

    def sigmoid(position):
        return -1.0 if position >= 3.0 else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0

    total = 0.0
    for score, spans in zip(scores, windows, strict=True):
        start = min(math.floor(0.15 * len(score)), 750)
        best = {k: -profile.fn for k, (first, last) in enumerate(spans) if last >= start}
        for row in range(start, len(score)):
            if score[row] < threshold:
                continue
            inside = [k for k, (first, last) in enumerate(spans) if first <= row <= last]
            if inside:
                first, last = spans[inside[0]]
                value = profile.tp * sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0)
                best[inside[0]] = max(best[inside[0]], value)
            else:
                before = [(first, last) for first, last in spans if last < row]
                position = abs(before[-1][1] - row) / (before[-1][1] - before[-1][0]) if before else 3.0
                total += profile.fp * sigmoid(position)
        total += sum(best.values())
    return total


@st.composite
def nab_corpora(draw):
    scores, windows = [], []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(30, 60))
        scores.append(
            np.array(draw(st.lists(st.sampled_from([0.1, 0.4, 0.5, 0.9, 1.0]), min_size=n, max_size=n)))
        )
        spans = [(12, 15)] * draw(st.booleans()) + [(20, 27)] * draw(st.booleans())
        windows.append(np.array(spans, np.int64).reshape(-1, 2))
    return scores, windows


@settings(max_examples=60, deadline=None)
@given(nab_corpora(), st.sampled_from(list(nab.PROFILES)))
def test_nab_sweep_and_score_agree_with_the_rules_row_by_row(corpus, name):
    scores, windows = corpus
    profile, count = nab.PROFILES[name], sum(map(len, windows))
    if count == 0:
        return
    prepared = nab.corpus([len(score) for score in scores], windows)
    null = -profile.fn * count

    def slow(threshold):
        return 100 * (slow_nab(scores, windows, threshold, profile) - null) / (profile.tp * count - null)

    swept = nab.sweep(scores, prepared, profile)
    assert swept.score == pytest.approx(
        max(slow(threshold) for threshold in (0.1, 0.4, 0.5, 0.9, 1.0, 1.1)), abs=1e-9
    )
    for threshold in (0.4, 0.9):
        assert nab.score([score >= threshold for score in scores], prepared, profile) == pytest.approx(
            slow(threshold), abs=1e-9
        )


@pytest.fixture
def nab_case():
    windows = [np.array([[900, 999], [1500, 1520]]), np.zeros((0, 2), np.int64), np.array([[2000, 2399]])]
    rows = [3000, 2000, 6000]
    return rows, windows, nab.corpus(rows, windows)


@pytest.mark.parametrize("profile", nab.PROFILES.values(), ids=nab.PROFILES.keys())
def test_nab_perfect_is_100_and_silence_is_0(nab_case, profile):
    rows, windows, corpus = nab_case
    perfect = [np.zeros(n) for n in rows]
    for score, spans in zip(perfect, windows, strict=True):
        score[spans[:, 0]] = 1.0
    assert nab.sweep(perfect, corpus, profile) == nab.Sweep(1.0, pytest.approx(100.0))
    assert nab.score([score > 0 for score in perfect], corpus, profile) == pytest.approx(100.0)
    null = [np.full(n, 0.5) for n in rows]
    assert nab.sweep(null, corpus, profile) == nab.Sweep(np.inf, 0.0)
    assert nab.score([score > 0.5 for score in null], corpus, profile) == 0.0


def test_nab_halves_and_files(nab_case):
    rows, _, corpus = nab_case
    profile = nab.PROFILES["standard"]
    flags = [np.zeros(n, bool) for n in rows]
    flags[0][900] = True
    flags[1][1000] = True  # far from any window: costs fp
    assert nab.file_gains(flags, corpus, profile) == pytest.approx([2.0, -0.11, 0.0])
    assert nab.score(flags, corpus, profile, np.array([True, False, False])) == pytest.approx(50.0)
    assert math.isnan(nab.score(flags, corpus, profile, np.array([False, True, False])))


def test_nab_probation_earns_nothing(nab_case):
    rows, _, corpus = nab_case
    flags = [np.zeros(n, bool) for n in rows]
    flags[0][: nab.probation(3000)] = True
    assert nab.probation(3000) == 450
    assert nab.probation(10_000) == 750
    assert nab.file_gains(flags, corpus, nab.PROFILES["standard"]).tolist() == [0, 0, 0]
