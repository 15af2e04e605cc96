"""Silence commands in messages: they silence their own alert, and no other."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.alerts.factory import router_of
from pipeline.alerts.outbox import OutboxWriter
from pipeline.alerts.routing.matchers import compile_matcher, escape_glob, match_fields
from pipeline.cli.commands.silences import _matchers
from pipeline.config.loader import load_config
from pipeline.core.types import Fault, FaultKind
from storage.alerting import outbox
from tests.support.alerting import RouterBench, anomaly

PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12)


@given(PRINTABLE, PRINTABLE)
@example("rack[3]", "rack3")
@example("*", "anything")
@example("!b2", "b3")
@example("\\!b2", "!b2")
@example("[!]x", "!x")
@example("a?c", "abc")
def test_an_escaped_text_matches_itself_only(text: str, other: str):
    matches = compile_matcher({"site": escape_glob(text)})
    assert matches({"site": text})
    assert matches({"site": other}) is (other == text)


def silence_of(bench: RouterBench) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of the offered command, and its matcher."""
    arguments = shlex.split(bench.sent()[-1].data.commands.silence)
    return arguments, _matchers([b for a, b in itertools.pairwise(arguments) if a == "--match"])


@pytest.mark.parametrize("site", ["rack[3]", "*", "!b2", "a b'c\"d", "$(id)", "x=y,z", ""])
def test_the_offered_command_matches_its_own_series_only(sqlite_bench: RouterBench, site: str):
    mine = anomaly(labels={"site": site, "series": "label that is called like a property"})
    sqlite_bench.happen(mine)
    sqlite_bench.settle()
    arguments, match = silence_of(sqlite_bench)
    assert "--all" not in arguments
    assert compile_matcher(match)(match_fields(mine))
    assert not compile_matcher(match)(match_fields(anomaly(labels={"site": f"{site}2"})))


def test_a_series_without_labels_and_a_fault_are_matched_by_name(sqlite_bench: RouterBench):
    mine = anomaly("pump[1]", labels={})
    sqlite_bench.happen(mine)
    sqlite_bench.settle()
    assert silence_of(sqlite_bench)[1] == {"series": "pump[[]1]"}
    sqlite_bench.now_ns += 1
    sqlite_bench.happen(Fault("plant", FaultKind.SOURCE_DOWN, "away", sqlite_bench.now_ns))
    sqlite_bench.settle()
    assert silence_of(sqlite_bench)[1] == {"fault": "source_down/"}


def test_commands_work_from_another_folder(sqlite_bench: RouterBench, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my config.yaml").write_text(
        "database: sqlite:///forewatch.db\n"
        "streams: {plant: {source: {memory: {name: x}}, format: {json: {series: s, time: t, values: [v]}}}}\n"
        "endpoints: {chat: {type: json, url: 'http://127.0.0.1:9/', allow: [loopback]}}\n"
    )
    sqlite_bench.router = router_of(load_config("my config.yaml"))
    with sqlite_bench.database.begin() as connection:
        outbox.ensure_streams(connection, ["plant"])
        OutboxWriter("plant", enabled=True).on_changes(
            connection, [anomaly(start_ns=sqlite_bench.now_ns)], sqlite_bench.now_ns
        )
    sqlite_bench.settle()
    commands = sqlite_bench.sent()[-1].data.commands
    for command in (commands.silence, commands.acknowledge, commands.label, commands.explain):
        assert shlex.split(command)[:3] == ["cd", str(tmp_path), "&&"]
        assert shlex.split(command)[-2:] == ["--config", str(tmp_path / "my config.yaml")]


@pytest.fixture
def sqlite_bench(sqlite_template: Path, tmp_path: Path) -> RouterBench:
    import shutil

    from storage.sql.database import Database

    shutil.copy(sqlite_template, tmp_path / "bench.db")
    return RouterBench(Database(f"sqlite:///{tmp_path}/bench.db"))
