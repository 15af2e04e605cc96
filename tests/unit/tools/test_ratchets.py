"""The ratchets of style: counts may only go down."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield
    for name in ("ratchets", "structure"):
        sys.modules.pop(name, None)


def test_a_grown_count_is_reported_and_a_lower_one_is_not():
    from ratchets import compare_counts

    messages = compare_counts({"D103": 2, "E501": 5}, Counter({"D103": 3, "E501": 4, "C901": 1}))
    assert [message.partition(":")[0] for message in messages] == ["C901", "D103"]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("What is read.", True),
        ("Whether it runs.", True),
        ("Of a stream.", True),
        ("Offset of a row.", False),
    ],
)
def test_docstrings_that_begin_with_a_question_word_are_found(docstring, expected):
    from structure import starts_with_question_word

    assert starts_with_question_word(docstring) is expected


def test_an_args_section_is_wanted_from_the_fourth_parameter_on():
    from ratchets import missing_args_sections
    from structure import Source

    text = "class A:\n    def put(self, a, b, c): ...\n    def get(self, a, b, c, d): ...\n"
    assert list(missing_args_sections(Source(Path("a.py"), 3, ast.parse(text)))) == [3]
