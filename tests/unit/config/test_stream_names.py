"""Names of streams that would be ambiguous somewhere are refused with line and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.loader import load_config
from pipeline.core.errors import ConfigError


def load(folder: Path, *names: str, **groups: str) -> None:
    streams = {
        name: {
            "source": {
                "kafka": {"brokers": ["a:1"], "topics": ["t"]}
                | ({"group": groups[name]} if name in groups else {})
            },
            "format": {"json": {"series": "s", "time": "t", "values": "v"}},
        }
        for name in names
    }
    path = folder / "forewatch.yaml"
    path.write_text(json.dumps({"database": f"sqlite:///{folder}/a.db", "streams": streams}))
    load_config(path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        (" plant", "spaces around it"),
        ("pl\x00ant", "cannot be printed"),
        ("plant\n", "spaces around it"),
        ("\u202eplant", "cannot be printed"),
        ("x" * 201, "201 characters"),
        ("forewatch", "alerts about deliveries"),
        ("plant (backfill 0123abcd)", "positions of a backfill"),
    ],
)
def test_an_ambiguous_name_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path, name)


def test_two_names_that_give_one_queue_are_refused(tmp_path: Path) -> None:
    """Series x of the stream a/b, and series b/x of the stream a."""
    load(tmp_path, "a/b", "a b", "Werk Süd", "..")
    with pytest.raises(ConfigError, match=r"streams\.a/b: it begins with 'a/'"):
        load(tmp_path, "a/b", "a")


def test_a_group_may_not_be_the_default_of_another_stream(tmp_path: Path) -> None:
    """Each of both would read only a part of the topic."""
    load(tmp_path, "plant", "mill", plant="forewatch-plant")
    with pytest.raises(ConfigError, match="already uses the group 'forewatch-mill'"):
        load(tmp_path, "plant", "mill", plant="forewatch-mill")
