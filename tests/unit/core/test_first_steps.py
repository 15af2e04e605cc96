"""First steps: the alerts and the dashboard give the same advice."""

from __future__ import annotations

import re
from pathlib import Path

import pipeline.dashboard
from pipeline.core.first_steps import FIRST_STEPS
from pipeline.core.verdict_words import CAUSE_TEXTS


def test_alerts_and_dashboard_give_the_same_advice():
    source = (Path(pipeline.dashboard.__file__).parent / "web" / "src" / "advice.ts").read_text()
    shown = dict(re.findall(r'^  (\w+): "(.+)",$', source, re.MULTILINE))
    assert shown == FIRST_STEPS


def test_every_first_step_is_that_of_a_cause():
    assert set(FIRST_STEPS) <= set(CAUSE_TEXTS)
