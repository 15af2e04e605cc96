"""The database of a config file, read without the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.database_key import DEFAULT_DATABASE, KEYS, DatabaseKey, read_database_key
from pipeline.config.field_types import SecretMissing
from pipeline.config.schema import Config
from pipeline.config.yaml_file import ConfigFileError

STREAMS = "streams: {plant: {source: {memory: {}}, format: {csv: {series: s, time: t, values: v}}}}\n"


def key_of(folder: Path, text: str) -> DatabaseKey | None:
    file = folder / "forewatch.yaml"
    file.write_text(text)
    return read_database_key(file)


def test_keys_and_default_are_those_of_the_models():
    assert frozenset(Config.model_fields) == KEYS
    assert Config.model_fields["database"].default == DEFAULT_DATABASE


def test_the_database_is_read_while_another_part_has_an_error(tmp_path):
    text = "database: sqlite:///plant.db\nhttp: {port: none}\n" + STREAMS
    assert key_of(tmp_path, text) == DatabaseKey("sqlite:///plant.db", None, ("plant",))
    assert key_of(tmp_path, STREAMS) == DatabaseKey(DEFAULT_DATABASE, None, ("plant",))


@pytest.mark.parametrize(
    "text",
    [
        "databse: sqlite:///plant.db\n" + STREAMS,
        "database: [sqlite:///plant.db]\n" + STREAMS,
        "database: sqlite://plant.db\n" + STREAMS,
        "database: mysql://host/plant\n" + STREAMS,
        "database: postgresql://user:hunter2@host/plant\n" + STREAMS,
        "database_password: {env: A, file: B}\n" + STREAMS,
        "database_password: hunter2\n" + STREAMS,
        "database: sqlite:///plant.db\n",
        "streams: {1: {}}\n",
    ],
)
def test_what_the_models_have_to_explain_is_left_to_them(tmp_path, text):
    assert key_of(tmp_path, text) is None


def test_a_password_is_revealed(tmp_path, monkeypatch):
    text = "database: postgresql://user@host/plant\ndatabase_password: {env: PLANT_PASSWORD}\n" + STREAMS
    monkeypatch.setenv("PLANT_PASSWORD", "opensesame")
    key = key_of(tmp_path, text)
    assert key is not None
    assert key.password == "opensesame"
    monkeypatch.delenv("PLANT_PASSWORD")
    with pytest.raises(SecretMissing, match="PLANT_PASSWORD is not set"):
        key_of(tmp_path, text)


def test_a_file_that_is_no_yaml_is_refused_with_its_line(tmp_path):
    with pytest.raises(ConfigFileError, match=r"forewatch\.yaml:1: not YAML"):
        key_of(tmp_path, "database: [")
