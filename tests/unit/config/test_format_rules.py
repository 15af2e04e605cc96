"""Formats that cannot be used are refused at the start, with line and key."""

from __future__ import annotations

import pytest

from pipeline.config.loader import load_config
from pipeline.core.errors import ConfigError

CONFIG = """\
streams:
  plant:
    source: {{files: {{paths: [x.csv]}}}}
    format:
      csv:
        series: k
        time: t
        values: [v]
        {extra}
"""


@pytest.mark.parametrize(
    ("extra", "key", "said"),
    [
        ("where: name ==", "where", "needs a value"),
        ("where: {name: {like: x}}", "where.name", "write a value, a list, a glob"),
        ("time_format: '%H:%M'", "time_format", "does not hold a whole date"),
        ("time_format: '%Q'", "time_format", "cannot be used"),
        ("thousands: '.'", "thousands", "is the decimal sign, too"),
        ("units: ['5']", "units", "is not a unit"),
        ("encoding: klingon", "encoding", "there is no encoding 'klingon'"),
    ],
)
def test_a_format_that_cannot_be_used(extra, key, said, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(extra=extra))
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert f"streams.plant.format.csv.{key.split('.')[0]}" in str(refused.value)
    assert said in str(refused.value)
    assert ":9: " in str(refused.value)


def test_a_file_has_no_timestamps_of_records(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.replace("time: t", "time: $timestamp").format(extra="decimal: ','"))
    with pytest.raises(ConfigError, match="has no \\$timestamp"):
        load_config(file)
