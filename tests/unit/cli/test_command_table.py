"""The application with one command, as a command line needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from pipeline.cli import _command_of, _only_command
from pipeline.cli.command_table import COMMANDS, build_app


@pytest.mark.parametrize(
    ("line", "only"),
    [
        ("alerts list --json", "alerts"),
        ("--log-level debug alerts list", "alerts"),
        ("--log-level=debug alerts list", "alerts"),
        ("--help", None),
        ("--help alerts", None),
        ("--show-completion", None),
        ("", None),
    ],
)
def test_only_the_command_that_runs_is_built(line: str, only: str | None):
    arguments = line.split()
    assert _only_command(arguments, _command_of(arguments)) == only


def test_completion_has_all_commands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_FOREWATCH_COMPLETE", "complete_bash")
    assert _only_command(["alerts"], "alerts") is None


def test_one_command_is_that_of_the_whole_application():
    whole = typer.main.get_command(build_app())
    assert set(whole.commands) == set(COMMANDS)  # type: ignore[attr-defined]
    for name in ("alerts", "label", "version", "db"):
        one = typer.main.get_command(build_app(name))
        assert list(one.commands) == [name]  # type: ignore[attr-defined]
        assert one.commands[name].help == whole.commands[name].help  # type: ignore[attr-defined]
    unknown = typer.main.get_command(build_app("nothing"))
    assert set(unknown.commands) == set(COMMANDS)  # type: ignore[attr-defined]


def test_a_command_does_not_import_the_others():
    code = (
        "import sys; from pipeline.cli.command_table import build_app; build_app('alerts'); "
        "print([name for name in sys.modules if name.startswith('pipeline.cli.commands.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert found.stdout.strip() == "['pipeline.cli.commands.alerts']"
