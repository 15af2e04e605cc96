"""Records that a backfill selects."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.commands.backfill import _selected
from pipeline.config.schema import Config
from pipeline.core.errors import InputError

FORMAT = {"json": {"series": "s", "time": "t", "values": ["v"]}}


def config_of(**source: object) -> Config:
    return Config.model_validate({"streams": {"plant": {"source": source, "format": FORMAT}}})


def test_a_stream_of_files_has_its_own_files(tmp_path: Path) -> None:
    config = config_of(files={"paths": [f"{tmp_path}/week-*.jsonl"]})
    with pytest.raises(InputError, match=r"streams.plant.source.files.paths: .*no such file"):
        _selected(config, "plant", [], None, None)
    weeks = [tmp_path / f"week-{n}.jsonl" for n in (1, 2)]
    other = tmp_path / "other.jsonl"
    for path in (*weeks, other):
        path.touch()
    assert _selected(config, "plant", [], None, None) == weeks
    assert _selected(config, "plant", [str(other)], None, None) == [other]
    assert _selected(config, "plant", [], 1, 2) == []


def test_another_source_needs_files_or_a_range() -> None:
    config = config_of(memory={"name": "x"})
    with pytest.raises(InputError, match="no records are selected"):
        _selected(config, "plant", [], None, None)
    assert _selected(config, "plant", [], None, 5) == []
    with pytest.raises(InputError, match="--from must be before --to"):
        _selected(config, "plant", [], 5, 5)
