"""The series table: slots, growth, and pages that read back to the same state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.types import Partition
from pipeline.scoring.series_table import MIN_SLOTS_TO_ADD, LoadedPage, SeriesTable, StateLayer

P, Q = Partition("t", 0), Partition("t", 1)


def initial(n: int) -> dict[str, np.ndarray]:
    return {
        "level": np.full((n, 2), np.nan, np.float32),
        "count": np.zeros(n, np.int64),
        "on": np.ones(n, np.bool_),
    }


def table(version: str = "1") -> SeriesTable:
    return SeriesTable(
        {
            "detector": StateLayer(version, initial),
            "windows": StateLayer("w", lambda n: {"seq": np.zeros(n, np.int64)}),
        }
    )


def test_a_series_keeps_its_slot_and_partitions_are_apart() -> None:
    t = table()
    slots, new = t.find(P, ["a", "b", "a"])
    assert slots.tolist()[0] == slots.tolist()[2] != slots.tolist()[1]
    assert new == ["a", "b"]
    again, new = t.find(P, ["b", "a"])
    assert again.tolist() == [slots[1], slots[0]]
    assert not new
    other, _ = t.find(Q, ["a"])
    assert other[0] not in slots
    assert len(t) == 3


def test_growth_keeps_state_and_begins_new_rows_alike() -> None:
    t = table()
    first, _ = t.find(P, ["x"])
    t.state["detector"]["count"][first] = 7
    slots, _ = t.find(P, [f"s{i}" for i in range(3 * MIN_SLOTS_TO_ADD)])
    assert t.state["detector"]["count"][first] == 7
    assert np.isnan(t.state["detector"]["level"][slots]).all()
    assert t.state["detector"]["on"][slots].all()


def test_a_dropped_partition_leaves_nothing_behind_and_its_slots_are_used_again() -> None:
    t = table()
    slots, _ = t.find(P, ["a", "b"])
    t.state["detector"]["count"][slots] = 5
    t.drop(P)
    assert len(t) == 0
    fresh, new = t.find(Q, ["c", "d"])
    assert sorted(fresh.tolist()) == sorted(slots.tolist())
    assert new == ["c", "d"]
    assert (t.state["detector"]["count"][fresh] == 0).all()


@given(
    st.dictionaries(st.text(), st.integers(-(2**62), 2**62), max_size=30),
    st.integers(1, 400),
)
def test_pages_read_back(series: dict, page_bytes: int) -> None:
    t = table()
    keys = list(series)
    slots, _ = t.find(P, keys)
    t.state["detector"]["count"][slots] = list(series.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.scoring.series_table.PAGE_BYTES", page_bytes)
        pages = list(t.pages(t.slots(P)))
    back = table()
    back.find(Q, ["somebody else"])
    for page in pages:
        assert back.load_page(P, page) == LoadedPage()
    found, new = back.find(P, keys)
    assert not new
    assert back.state["detector"]["count"][found].tolist() == list(series.values())


def test_a_layer_of_another_version_is_reset_and_the_others_are_kept() -> None:
    old, new = table("1"), table("2")
    slots, _ = old.find(P, ["a"])
    old.state["detector"]["count"][slots] = 9
    old.state["windows"]["seq"][slots] = 4
    (page,) = old.pages(slots)
    assert new.load_page(P, page) == LoadedPage(reset=("detector",))
    slots, _ = new.find(P, ["a"])
    assert new.state["detector"]["count"][slots].tolist() == [0]
    assert new.state["windows"]["seq"][slots].tolist() == [4]


def test_a_converted_layer_says_whether_its_usual_ranges_start_empty() -> None:
    old = table("1")
    (page,) = old.pages(old.find(P, ["a"])[0])
    for starts in (False, True):
        new = SeriesTable(
            {
                "detector": StateLayer(
                    "2",
                    initial,
                    convert=lambda version, rows: rows if version == "1" else None,
                    starts_usual_ranges=lambda version, starts=starts: starts and version == "1",
                ),
                "windows": old.layers["windows"],
            }
        )
        without = ("detector",) if starts else ()
        assert new.load_page(P, page) == LoadedPage(converted=("detector",), without_ranges=without)
