"""The reference of log events is complete, and every event is a fixed text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.observability.log_reference import ROOT, VariableEvent, log_events, log_events_markdown


def events_of(folder: Path, code: str) -> list[tuple]:
    for name in ("pipeline", "storage", "detectors"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "pipeline" / "part.py").write_text(code)
    return [(one.event, one.level, one.logger, one.fields) for one in log_events(folder)]


def test_the_committed_page_is_the_generated_one():
    page = ROOT / "docs" / "reference" / "log-events.md"
    assert page.read_text(encoding="utf-8") == log_events_markdown(), "run make docs"


def test_every_module_with_a_logger_is_on_the_page():
    logs = re.compile(r"^\s*log\.(?:debug|info|warning|error|exception)\(", re.MULTILINE)
    with_calls = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in ("pipeline", "storage", "detectors")
        for file in (ROOT / package).rglob("*.py")
        if logs.search(file.read_text())
    }
    assert with_calls <= {one.logger for one in log_events()}


def test_levels_and_fields(tmp_path: Path):
    found = events_of(
        tmp_path, "log.warning('it waits', b=1, a=2)\nself._log.exception('it fails', exc_info=1)"
    )
    assert found == [
        ("it fails", "error", "pipeline.part", ()),
        ("it waits", "warning", "pipeline.part", ("a", "b")),
    ]


def test_either_of_two_texts(tmp_path: Path):
    found = events_of(tmp_path, "log.info('first' if one else 'second')")
    assert [one[0] for one in found] == ["first", "second"]


def test_bound_fields_are_of_the_caller(tmp_path: Path):
    assert events_of(tmp_path, "log.bind(a=1).info('bound')")[0][0] == "bound"


@pytest.mark.parametrize("call", ["log.info(f'{name} waits')", "log.info(text)", "log.info('a' + b)"])
def test_an_event_that_varies_is_refused(tmp_path: Path, call: str):
    with pytest.raises(VariableEvent, match=r"pipeline\.part:1: "):
        events_of(tmp_path, call)
