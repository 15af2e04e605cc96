"""What the demo prints for another terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.demo.session import command_path


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
