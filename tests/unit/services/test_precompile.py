"""`make setup` compiles ahead: every call must still be valid."""

from __future__ import annotations

from pipeline.services import precompile


def test_each_step_runs_and_prints_a_line(capsys):
    precompile.main()
    told = capsys.readouterr().err.splitlines()
    count = len(list(precompile.steps()))
    begun = [line for line in told if line.startswith("compiling ") and line.endswith(f" of {count})")]
    assert len(begun) == count
    assert begun[0] == f"compiling detector light (1 of {count})"
    assert sum("took" in line for line in told) == count
