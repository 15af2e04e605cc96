"""Packs of SenML: base fields, relative times, switches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.decode import Decoded, make_decoder
from tests.support.decoding import records, stream

T = 1_764_028_800
NS = 10**9


def decode(*packs: Any, **settings: Any) -> Decoded:
    values = [pack if isinstance(pack, bytes) else json.dumps(pack).encode() for pack in packs]
    return make_decoder("s", stream({"senml": {}})).decode(records(values, **settings))


def test_base_fields_hold_for_the_samples_after_them() -> None:
    pack = [
        {"bn": "a:", "bt": T, "bv": 20, "n": "temp", "v": 0.5},
        {"n": "temp", "t": 5, "v": 1},
        {"bn": "b:", "n": "temp", "t": 6},
        {"n": "on", "vb": True},
        {"n": "text", "vs": "warm"},
    ]
    columns, dead = decode(pack)
    assert dead == []
    points = list(
        zip(
            columns.keys.flat(), (columns.time // NS - T).tolist(), columns.values[:, 0].tolist(), strict=True
        )
    )
    assert points == [("a:temp", 0, 20.5), ("a:temp", 5, 21.0), ("b:temp", 6, 20.0), ("b:on", 0, 1.0)]


def test_a_relative_time_counts_from_that_of_the_record() -> None:
    pack = [{"n": "a", "v": 1, "t": -60}, {"n": "a", "v": 2}]
    columns, dead = decode(pack, timestamps=[T * NS])
    assert ((columns.time // NS).tolist(), dead) == ([T - 60, T], [])
    _, (letter,) = decode(pack)
    assert "the record has no time of its own" in letter.detail


@pytest.mark.parametrize("pack", [b"[", b"[1]", [{"n": "a", "t": "soon", "v": 1}]])
def test_a_bad_pack_is_a_dead_letter(pack: Any) -> None:
    columns, dead = decode(pack, [{"n": "a", "t": T, "v": 1}])
    assert (len(columns), len(dead)) == (1, 1)


def test_texts_alone_are_filtered() -> None:
    columns, dead = decode([{"bn": "a", "bt": T, "vs": "warm"}])
    assert (len(columns), columns.filtered, dead) == (0, 1, [])
