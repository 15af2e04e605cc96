"""StreamScorer: a series is reset between its points, wherever the batch was cut."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import DetectorSpec, Points, State, Verdicts
from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.scoring.provenance import Provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records

P = Partition("t", 0)
MINUTE = 60


class CountingDetector:
    """Its score is how many points of the series it has seen since it began."""

    spec, version, state_version, weights = DetectorSpec(), "counting", "1", ""

    def initial(self, n: int) -> State:
        return {"count": np.zeros(n, np.int64)}

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        seen = np.empty(len(points), np.float32)
        for row, slot in enumerate(points.slot):
            state["count"][slot] += 1
            seen[row] = state["count"][slot]
        column = points.values.astype(np.float32)
        return state, Verdicts(
            seen,
            seen,
            np.zeros(len(points), bool),
            column,
            column,
            column,
            column,
            *np.zeros((2, len(points)), np.uint8),
        )

    def on_weights_changed(self, state: State) -> None:
        """There is nothing that only its weights understand."""

    def register_series(self, state: State, slots: np.ndarray, names: Iterable[str]) -> None:
        """All series are alike to it."""


def stream() -> Stream:
    return Stream.model_validate(
        {
            "source": {"memory": {}},
            "format": {"json": {"series": "s", "time": "t", "values": "v"}},
            "every": "1m",
            "gap": {"restart_after": 5},
        }
    )


def run(records: list[tuple[str, int]], cuts: list[int]) -> list[float]:
    provenance = Provenance("x", ("v",), 1e-4, 3, "c", "m")
    scorer = StreamScorer(provenance, stream(), CountingDetector())
    found: list[float] = []
    for start, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        values = [
            json.dumps({"s": s, "t": 1_700_000_000 + minute * MINUTE, "v": 1}).encode()
            for s, minute in records[start:end]
        ]
        offsets = np.arange(start, end)
        batch = Records(P, start, end, offsets, np.full(len(values), -1), values, [None] * len(values))
        result = scorer.process([batch])
        if result.scored is not None:
            found += result.scored.verdicts.score.tolist()
    return found


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), min_size=1, max_size=40), st.data())
def test_restarts_do_not_depend_on_the_batches(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    minute = dict.fromkeys("ab", 0)
    records, expected, count = [], [], dict.fromkeys("ab", 0)
    for series, step in steps:
        minute[series] += step
        began = count[series] > 0 and step - 1 >= 5
        count[series] = 1 if began else count[series] + 1
        records.append((series, minute[series]))
        expected.append(float(count[series]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records)))) - {len(records)})
    assert run(records, []) == expected
    assert run(records, cuts) == expected
