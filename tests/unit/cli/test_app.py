"""The command line without any server: help, usage, times, output, the files it writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.docs import PAGES
from pipeline.cli.exit_codes import EXITS
from pipeline.cli.output import show_fields, show_json, show_table
from pipeline.cli.times import parse_time, show_time
from pipeline.core.errors import ForewatchError
from pipeline.local_kafka.broker import BrokerError
from pipeline.observability.watchdog import EXIT_CODE

ROOT = Path(__file__).resolve().parents[3]
HOUR = 3_600_000_000_000


def commands(group: typer.main.TyperGroup, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(group, "commands", {})
    return [path] + [found for name, one in inner.items() for found in commands(one, (*path, name))]


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_every_option_has_help(path):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    assert command.help
    assert [param.name for param in command.params if not param.help] == []
    assert not path or len(command.get_short_help_str(100)) < 62, "fits a line of the overview"


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['forewatch', '--help']\nfrom pipeline.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "torch",
        "numpy",
        "pandas",
        "pyarrow",
        "numba",
        "river",
        "matplotlib",
        "distributed",
        "sqlalchemy",
        "kafka",
        "pydantic",
        "scipy",
    }
    assert "Commands:" in run.stdout
    assert heavy & set(run.stderr.split()) == set()


def test_every_exit_code_that_errors_have_is_documented():
    def codes(kind: type[ForewatchError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(inner) for inner in kind.__subclasses__()))

    assert issubclass(BrokerError, ForewatchError), "imported, so that it is among them"
    assert codes(ForewatchError) | {0, 130, EXIT_CODE} == set(EXITS)


@pytest.mark.parametrize("page", PAGES)
def test_generated_pages_are_up_to_date(page):
    assert (ROOT / "docs" / "reference" / page).read_text() == PAGES[page](), "run `make docs`"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-02", 86_400 * 10**9),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01 00:00:01.000001", 10**9 + 1000),
        ("2262-01-01", 9_214_646_400 * 10**9),
    ],
)
def test_times_are_read_in_utc(text, ns):
    assert parse_time(text) == ns


@pytest.mark.parametrize(
    ("text", "hours"),
    [("2h", 2), ("-2h", 2), ("1d12h", 36), ("30m", 0.5), ("1w", 168), ("2h ago", 2), ("now", 0)],
)
def test_relative_times_are_ago(text, hours):
    before = time.time_ns()
    got = parse_time(text)
    assert before - hours * HOUR <= got <= time.time_ns() - hours * HOUR


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-01", "5", "2y", "h", "12:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(typer.BadParameter, match="is not a time; write"):
        parse_time(text)


@given(st.integers(0, 9_000_000_000_000_000).map(lambda us: us * 1000))
def test_a_shown_time_is_read_back(ns):
    shown = show_time(ns)
    assert shown is not None
    assert shown.endswith("Z")
    assert parse_time(shown) == ns


def test_json_has_no_nan(capsys):
    show_json({"a": [float("nan"), float("inf"), 1.5], "ä": None})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "ä": None}


def test_tables_are_never_cut_in_a_pipe_and_markup_is_text(capsys):
    long = "x" * 300
    show_table(("series", "value"), [(long, 1.23456789), ("[red]a[/red]", float("nan"))], "nothing")
    out = capsys.readouterr().out
    assert long in out
    assert "[red]a[/red]" in out
    assert "1.23457" in out
    assert "missing" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_control_characters_are_shown_not_obeyed(capsys):
    show_table(("a",), [("x\x00\x1b[31m\ry",)], "none")
    show_fields({"a": "\x07"})
    assert capsys.readouterr().out.split() == ["a", r"x\x00\x1b[31m\ry", "a", r"\x07"]


def test_an_empty_table_says_so_beside_the_data(capsys):
    show_table(("series",), [], "no anomalies")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no anomalies\n")


def test_fields_one_a_line(capsys):
    show_fields({"id": 7, "ended": None})
    assert capsys.readouterr().out.splitlines() == ["id     7", "ended  -"]
