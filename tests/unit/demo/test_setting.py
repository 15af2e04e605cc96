"""Streams of the demo."""

from __future__ import annotations

import pytest

from pipeline.config.schema import Stream
from pipeline.demo.setting import demo_streams


@pytest.mark.parametrize("name", ["plant", "batches", "edge", "market"])
def test_the_simulated_clock_may_run_ahead_of_the_real_one(name):
    assert Stream.model_validate(demo_streams(None)[name]).future is None
