"""Codes of raw log lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode.log_templates import EMPTY, MAX_COMPARED_TEMPLATES, OVERFLOW, LogTemplates

LINES = [
    "Receiving block blk_-16 src: /10.250.19.102:54106 dest: /10.250.19.102:50010",
    "Receiving block blk_77 src: /10.0.0.1:9 dest: /10.0.0.2:10",
    "user 3f2504e0-4f89-11d3-9a0c-0305e82c3301 opened /var/log/a.txt",
    "user 00000000-4f89-11d3-9a0c-0305e82c3301 opened /srv/x/y",
    "connection closed",
]


def test_lines_of_one_template_have_one_code():
    templates = LogTemplates()
    codes = [templates.code(line) for line in LINES]
    assert codes[0] == codes[1]
    assert codes[2] == codes[3]
    assert len(set(codes)) == len(templates) == 3
    assert templates.templates()[0].lines == 2
    assert "user <UUID> opened <PATH>" in {one.text for one in templates.templates()}


def test_codes_are_the_same_after_a_restart():
    templates = LogTemplates()
    codes = [templates.code(line) for line in LINES]
    other = LogTemplates()
    other.restore(json.loads(json.dumps(templates.state())))
    assert other.state() == templates.state()
    assert [other.code(line) for line in reversed(LINES)] == codes[::-1]
    assert other.code("disk full") not in codes


def test_a_storm_of_templates_is_bounded():
    templates = LogTemplates(most=10)
    codes = [templates.code(f"{'w' * n} {'v' * n} {chr(97 + n)}") for n in range(1, 26)]
    assert len(templates) == 10
    assert codes[10:] == [OVERFLOW] * 15
    assert templates.code("w v b") == codes[0], "known templates keep their code"


def test_a_line_is_compared_with_a_limited_number_of_templates():
    templates = LogTemplates()
    codes = [templates.code(f"word{chr(97 + n % 26)}{n:x}z") for n in range(2000)]
    assert len(templates) == MAX_COMPARED_TEMPLATES
    assert codes[MAX_COMPARED_TEMPLATES:] == [OVERFLOW] * (2000 - MAX_COMPARED_TEMPLATES)
    assert templates.code("two words") not in codes, "lines of another length have room"
    assert templates.code("worda0z") == codes[0]


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=200)
def test_any_text_has_a_code_of_bounded_length(line):
    templates = LogTemplates()
    code = templates.code(line)
    assert 0 < len(code) <= 10
    assert templates.code(line) == code


def test_empty_binary_and_long_lines():
    templates = LogTemplates()
    assert templates.code("") == templates.code(" \t ") == EMPTY
    assert templates.code(b"\xff\x00\xfe".decode("utf-8", "replace"))
    long = "a " * 500_000
    assert templates.code(long) == templates.code(long + "b")


def test_a_mask_that_is_no_expression_is_refused():
    with pytest.raises(ValueError, match=r"mask '\(' is not a regular expression"):
        LogTemplates([("(", "X")])
