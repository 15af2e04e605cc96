"""Positions of the verdicts in a topic: their order, and those that an earlier version stored."""

from __future__ import annotations

from pipeline.outputs.kafka_transactions import WrittenPosition, metadata_of, position_of


def test_positions_of_one_offset_are_in_the_order_of_their_watermarks() -> None:
    records = WrittenPosition(7, False, "log")
    ends = [WrittenPosition(7, True, "log", until) for until in (100, 160, 220)]
    assert sorted([*reversed(ends), records], key=lambda one: one.order) == [records, *ends]
    assert WrittenPosition(8, False, "log").order > ends[-1].order


def test_a_position_is_stored_and_read() -> None:
    for position in (WrittenPosition(7, False, "log"), WrittenPosition(7, True, "log", 160)):
        assert position_of(7, metadata_of(position)) == position


def test_the_end_that_an_earlier_version_stored_is_the_only_one_of_its_offset() -> None:
    stored = position_of(7, '{"flushed": true, "identity": "log"}')
    assert stored.order >= WrittenPosition(7, True, "log", 1 << 62).order
    assert stored.order < WrittenPosition(8, False, "log").order
    assert position_of(7, '{"flushed": false, "identity": "log"}') == WrittenPosition(7, False, "log")
    assert position_of(7, '{"flushed": true, "until": []}') == WrittenPosition(7, False, "")
