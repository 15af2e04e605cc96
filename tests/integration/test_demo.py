"""The demo as a new user runs it, without a terminal: a real broker, an explained anomaly, its signed
webhook, a wrong order of events in words, and nothing left behind.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

COMMAND = Path(sys.executable).with_name("forewatch")
PATIENCE_S = 420


@pytest.mark.kafka
@pytest.mark.timeout(PATIENCE_S + 90)
def test_it_explains_an_anomaly_delivers_it_and_leaves_nothing():
    demo = subprocess.Popen(
        [COMMAND, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stuck = threading.Timer(PATIENCE_S, demo.terminate)
    stuck.start()
    said: list[str] = []
    assert demo.stdout is not None
    for line in demo.stdout:
        said.append(line)
        explained = re.search(r"^(WARNING|MAJOR|CRITICAL) .*usual .* Size: ", "".join(said), re.M)
        told = re.search(
            r"^(WARNING|MAJOR|CRITICAL) batches/mixer-\d .*Events before: fill, .*", "".join(said), re.M
        )
        if explained and told and "(signature verified)" in "".join(said):
            break
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=180)
    stuck.cancel()
    text = "".join(said) + rest
    assert demo.returncode == 0, text
    assert explained, text
    assert told, text
    first = next(line for line in text.splitlines() if " batches/" in line)
    assert re.search(
        r"“drain” came after “stir”, “sample”, as it does .+ cases; usual here: “cool” "
        r"\((more than )?\d+ % of cases\)",
        first,
    ), text
    assert text.index("injected fault: cooling after draining at mixer-") < text.index(first), text
    assert "nothing is left running" in text
    assert "Traceback" not in text, text
    (folder,) = set(re.findall(r"\S+forewatch-demo-\w+", text))
    assert not Path(folder).exists()
    assert not [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if folder in " ".join(process.info["cmdline"] or [])
    ]
