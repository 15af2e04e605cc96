"""Old names of configuration keys: read as the new ones, and reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from pipeline.config.loader import load_config
from pipeline.config.schema import Stream
from pipeline.config.stream_hash import config_hash

CONFIG = """streams:
  plant:
    source: {{memory: {{}}}}
    format: {{json: {{series: s, time: t, values: [v]}}}}
    {key}: {past}
"""


@pytest.fixture
def load(tmp_path: Path):
    past = tmp_path / "past.csv"
    past.write_text("s,t,v\n")

    def one(key: str) -> Stream:
        file = tmp_path / f"{key}.yaml"
        file.write_text(CONFIG.format(key=key, past=past))
        return load_config(file).streams["plant"]

    return one


def test_history_of_a_stream_is_read_as_warm_start_and_reported(load, tmp_path, monkeypatch):
    # A logger that another test has used keeps its processors, and capture_logs would not see its lines.
    monkeypatch.setattr("pipeline.config.loader.log", structlog.get_logger())
    with capture_logs() as logs:
        old = load("history")
    assert [(entry["line"], entry["key"], entry["new_name"]) for entry in logs] == [
        (5, "streams.plant.history", "warm_start")
    ]
    assert old.warm_start == tmp_path / "past.csv"


def test_the_hash_is_the_same_under_the_old_and_the_new_name(load):
    assert config_hash(load("history")) == config_hash(load("warm_start"))
