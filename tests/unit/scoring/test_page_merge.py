"""Pages of one series each, joined."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.core.errors import DamagedState
from pipeline.core.types import Partition
from pipeline.scoring.page_merge import PAGES_TO_JOIN, join_pages, split_page
from pipeline.scoring.series_table import SeriesTable, StateLayer

P = Partition("t", 0)


def initial(n: int) -> dict[str, np.ndarray]:
    return {
        "level": np.full((n, 2), np.nan, np.float32),
        "blocks": np.zeros((n, 3), np.int16),
        "none": np.zeros((n, 0, 2), np.uint8),
        "on": np.ones(n, np.bool_),
    }


def table(version: str = "1") -> SeriesTable:
    windows = StateLayer("w", lambda n: {"seq": np.zeros(n, np.int64)})
    return SeriesTable({"detector": StateLayer(version, initial), "windows": windows})


def pages_of_one(keys: list[str], version: str = "1") -> list[bytes]:
    """Return a page of each series, with states that differ."""
    t = table(version)
    slots, _ = t.find(P, keys)
    rng = np.random.default_rng(len(keys))
    t.state["detector"]["level"][slots] = rng.normal(size=(len(keys), 2))
    t.state["detector"]["blocks"][slots] = rng.integers(-9, 9, (len(keys), 3))
    t.state["detector"]["on"][slots] = rng.random(len(keys)) < 0.5
    t.state["windows"]["seq"][slots] = np.arange(len(keys)) * 10**12
    return [page for slot in slots for page in t.pages(np.array([slot]))]


def loaded(pages: Iterable[bytes]) -> tuple[dict[str, bytes], int]:
    """Return the state of each series, and the number of damaged pages."""
    t, damaged = table(), 0
    for page in pages:
        try:
            t.load_page(P, page)
        except DamagedState:
            damaged += 1
    slots = {key: t.slot_of(P, key) for key in t.keys_of(P)}
    states = [array for layer in t.state.values() for array in layer.values()]
    return {str(key): b"".join(one[slot].tobytes() for one in states) for key, slot in slots.items()}, damaged


def test_many_pages_are_joined_to_the_same_state():
    pages = pages_of_one([f'site "{{{n}}}", Größe {"x" * (n % 11)}' for n in range(PAGES_TO_JOIN + 90)])
    joined = list(join_pages(pages))
    assert len(joined) == 2
    assert loaded(joined) == loaded(pages)
    assert len(loaded(joined)[0]) == len(pages)


def test_a_page_is_split_to_pages_of_one_series():
    pages = pages_of_one([f'site "{{{n}}}", Größe' for n in range(40)])
    (joined,) = join_pages(pages)
    split = list(split_page(joined))
    assert len(split) == len(pages)
    for before, after in zip(pages, split, strict=True):
        assert loaded([after]) == loaded([before])
    assert list(join_pages(split)) != split


def test_pages_of_other_forms_and_damaged_ones_do_not_change_the_others():
    good, former = pages_of_one(["a", "b", "c"]), pages_of_one(["d", "e"], version="0")
    two = list(table_of_two().pages(np.array([0, 1])))
    broken = [pages_of_one(["f"])[0][:-3], b"", b"\x08\0\0\0\0\0\0\0{}      ", good[0][:40]]
    pages = [good[0], *broken, former[0], *two, good[1], former[1], good[2]]
    joined = list(join_pages(pages))
    assert len(joined) == len(broken) + len(two) + 2
    assert loaded(joined) == loaded(pages)
    assert loaded(joined)[1] == len(broken)


def table_of_two() -> SeriesTable:
    t = table()
    t.find(P, ["g", "h"])
    return t
