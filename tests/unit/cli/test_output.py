"""Lines that several threads print to one stdout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

THREADS, LINES = 8, 400
_PROGRAM = f"""
import threading
from pipeline.cli.output import print_line

def write(number):
    for line in range({LINES}):
        print_line(f"{{number}}-{{line}}" + "." * 60)

threads = [threading.Thread(target=write, args=(number,)) for number in range({THREADS})]
[one.start() for one in threads]
[one.join() for one in threads]
"""


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_lines_of_several_threads_stay_apart(unbuffered):
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=True,
    )
    written = [f"{number}-{line}{'.' * 60}" for number in range(THREADS) for line in range(LINES)]
    assert sorted(run.stdout.splitlines()) == sorted(written)
