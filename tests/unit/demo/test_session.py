"""Lines of the demo: the program for another terminal, and the answer to a signal."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.demo.session import command_path, end_announced


def test_a_program_that_is_on_no_path_is_named_by_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "forewatch"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_path("bin/forewatch") == str(program)
    assert command_path("-c") == "forewatch"
    monkeypatch.setenv("PATH", str(program.parent))
    assert command_path("bin/forewatch") == "forewatch"


def test_a_signal_is_answered_before_anything_has_ended() -> None:
    stopping, answered, lines = threading.Event(), threading.Event(), []

    def say(line: str) -> None:
        lines.append(line)
        answered.set()

    with end_announced(stopping, say):
        assert lines == []
        stopping.set()
        assert answered.wait(120)
    assert lines == ["[demo] stopping ..."]
