"""Columns of JSON come back as ``json`` reads them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.sql.json_texts import read_json

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(TREES)
def test_a_tree_comes_back(tree):
    for text in (json.dumps(tree), json.dumps(tree, ensure_ascii=False)):
        assert read_json(text) == json.loads(text)
        assert type(read_json(text)) is type(tree)


@pytest.mark.parametrize(
    "text", ['"\\ud800"', "[1, Infinity, -Infinity]", '{"a": 1, "a": 2}', "1" * 400, "-0.0"]
)
def test_what_other_parsers_refuse_is_read(text):
    assert read_json(text) == json.loads(text)


def test_a_missing_number_is_read():
    assert math.isnan(read_json("[NaN]")[0])


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nothing", '{"a"}'])
def test_damage_is_a_value_error(text):
    with pytest.raises(ValueError):
        read_json(text)
