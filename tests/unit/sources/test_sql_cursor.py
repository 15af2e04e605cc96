"""Values of cursor columns as offsets."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.sql.cursor_values import CursorKind, offset_of, value_of

zones = st.sampled_from([UTC, timezone(timedelta(hours=-7)), timezone(timedelta(hours=5, minutes=30))])
times = st.datetimes(datetime(1970, 1, 3), datetime(2199, 1, 1))
values = st.one_of(
    st.integers(0, 2**61), times, times.flatmap(lambda one: zones.map(lambda z: one.replace(tzinfo=z)))
)


@given(value=values | times.map(datetime.date))
def test_a_value_comes_back(value):
    offset, kind = offset_of(value)
    assert value_of(offset, kind) == value
    assert value_of(offset + 1, kind) > value, "the next one begins after it"


@given(one=times, other=times)
def test_the_order_of_times_is_that_of_the_offsets(one, other):
    assert (one < other) == (offset_of(one)[0] < offset_of(other)[0])


@pytest.mark.parametrize("value", [-1, 1.5, Decimal("1.5"), "2026", True, None, date(1960, 1, 1), 2**63])
def test_what_cannot_be_an_offset_is_refused(value):
    with pytest.raises(ValueError, match="must be"):
        offset_of(value)


def test_whole_decimals_are_numbers():
    assert offset_of(Decimal("7")) == (7, CursorKind.INTEGER)
