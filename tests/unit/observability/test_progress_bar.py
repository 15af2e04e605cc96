"""Progress in words, and on both kinds of stderr."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from pipeline.observability.progress_bar import describe, short

SCRIPT = """
from pipeline.observability.log_setup import configure_logs
from pipeline.observability.progress_bar import progress
configure_logs()
with progress("backfill", total=400) as shown:
    shown.advance(100)
    shown.expect(200)
    shown.advance(100)
"""


@pytest.mark.parametrize(
    ("number", "text"), [(0.5, "0.5"), (999, "999"), (1234, "1.23k"), (1_200_000, "1.2M"), (3e9, "3G")]
)
def test_short(number, text):
    assert short(number) == text


def test_a_line_says_how_far_how_fast_and_how_long():
    assert (
        describe(1_200_000, 4_800_000, 1.0, "points")
        == "1,200,000 of 4,800,000 points (25 %), 1.2M points/s, 0:00:03 left"
    )
    assert describe(5, None, 2.0, "steps") == "5 steps, 2.5 steps/s"
    assert describe(0, 10, 0.0, "points") == "0 of 10 points (0 %), 0 points/s"


def test_lines_off_a_terminal():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert '"event": "task is done"' in run.stderr
    assert "200 of 200 points (100 %)" in run.stderr
    assert run.stdout == ""


def test_a_bar_on_a_terminal():
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stderr=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    ) as process:
        os.close(terminal)
        shown = b""
        while chunk := _read(master):
            shown += chunk
        assert process.wait(timeout=60) == 0
    os.close(master)
    assert b"backfill" in shown
    assert b"100%" in shown


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # Linux says EIO when the other end is closed
        return b""
