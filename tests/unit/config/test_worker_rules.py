"""``workers`` is refused, with key and remedy, where several processes cannot share the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.loader import load_config
from pipeline.core.errors import ConfigError

KAFKA = {"kafka": {"brokers": ["127.0.0.1:9092"], "topics": ["t"]}}
POSTGRES = "postgresql+psycopg://user@127.0.0.1/db"


def written(folder: Path, workers: object, database: str, source: dict[str, Any]) -> Path:
    form = {"csv": {"series": ["s"], "time": "t", "values": ["v"], "header": ["t", "s", "v"]}}
    tree = {
        "database": database,
        "workers": workers,
        "streams": {"plant": {"source": source, "format": form}},
    }
    path = folder / "forewatch.yaml"
    path.write_text(json.dumps(tree, indent=1))
    return path


@pytest.mark.parametrize("workers", ["auto", 1, 4])
def test_kafka_and_postgresql_take_any_number(tmp_path: Path, workers: object):
    assert load_config(written(tmp_path, workers, POSTGRES, KAFKA)).workers == workers


@pytest.mark.parametrize("workers", ["auto", 2])
def test_sqlite_is_refused(tmp_path: Path, workers: object):
    path = written(tmp_path, workers, "sqlite:///forewatch.db", KAFKA)
    with pytest.raises(ConfigError, match=r"forewatch\.yaml:3.*workers.*SQLite.*PostgreSQL"):
        load_config(path)


@pytest.mark.parametrize(
    "source",
    [{"files": {"paths": ["x.csv"]}}, {"telemetry": {}}, {"memory": {}}],
    ids=lambda one: next(iter(one)),
)
def test_sources_without_a_group_are_refused(tmp_path: Path, source: dict[str, Any]):
    path = written(tmp_path, 2, POSTGRES, source)
    with pytest.raises(ConfigError, match=rf"streams\.plant\.source\.{next(iter(source))}.*workers: 1"):
        load_config(path)


@pytest.mark.parametrize("workers", [0, -1, 1000, "many", 2.5])
def test_other_values_are_refused(tmp_path: Path, workers: object):
    with pytest.raises(ConfigError, match="workers"):
        load_config(written(tmp_path, workers, POSTGRES, KAFKA))


def test_one_worker_takes_everything(tmp_path: Path):
    path = written(tmp_path, 1, "sqlite:///forewatch.db", {"files": {"paths": ["x.csv"]}})
    assert load_config(path).workers == 1
