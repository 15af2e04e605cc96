"""The estimate of resources agrees with what was measured."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.core.errors import InputError
from pipeline.services import sizing
from pipeline.services.sizing import Load, helm_values, size_of

ROOT = Path(__file__).resolve().parents[3]
NOTES = (ROOT / "docs/lab-notes/benchmarks.md").read_text(encoding="utf-8")
#: Detector, series, peak memory in MB of the table "Cost of a point and of a series".
SCALE_ROWS = [
    (cells[0], int(cells[1].replace(",", "")), float(cells[6].split("(")[0].replace(",", "")))
    for cells in (
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in NOTES.splitlines()
        if re.match(r"\| (light|standard) \| [\d,]+ \| [\d,]+ \|", line)
    )
]


def test_the_table_of_measurements_is_found():
    assert len(SCALE_ROWS) >= 7


@pytest.mark.parametrize(("detector", "series", "measured"), SCALE_ROWS)
def test_memory_agrees_with_the_measurements_of_backfills(detector: str, series: int, measured: float):
    state = sizing.state_bytes(detector, 1, "surprise") + sizing.SERIES_BYTES
    predicted = (sizing.PROCESS_BYTES + sizing.BATCH_BYTES + series * state) / 1e6
    assert predicted == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(("detector", "measured"), [("light", 1.98), ("standard", 5.37)])
def test_cpu_agrees_with_the_measurements_of_kafka(detector: str, measured: float):
    assert f"| {measured:g} |" in NOTES
    size = size_of(Load(100, 1e6, detector, decision="surprise"))
    assert size.cpu_cores == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("detector", ["light", "standard", "strong"])
def test_the_pages_state_the_bytes_of_a_series(detector: str):
    usual, surprise = (sizing.state_bytes(detector, 1, one) for one in ("usual_range", "surprise"))
    page = (ROOT / "docs/how-to/plan-the-size.md").read_text(encoding="utf-8")
    assert f"| `{detector}` | {usual:,} bytes | {surprise:,} bytes |" in page
    explained = (ROOT / "docs/explanation/detection.md").read_text(encoding="utf-8")
    (row,) = [line for line in explained.splitlines() if line.startswith(f"| `{detector}` |")]
    assert f"| {usual:,} bytes | {surprise:,} bytes;" in row


def test_members_run_at_half_of_a_core_even_without_one():
    size = size_of(Load(10_000, 200_000, "standard"))
    assert size.cpu_cores / (size.members - 1) <= sizing.PLANNED_LOAD
    assert size.partitions >= 2 * size.members


def test_more_of_anything_never_needs_less():
    base = size_of(Load(1000, 1000))
    for more in (
        Load(100_000, 1000),
        Load(1000, 300_000),
        Load(1000, 1000, channels=8),
        Load(1000, 1000, "strong"),
    ):
        found = size_of(more)
        assert found.member_memory_bytes >= base.member_memory_bytes
        assert found.members >= base.members
        assert found.history_bytes_a_day >= base.history_bytes_a_day


def test_values_of_the_chart():
    size = size_of(Load(10_000, 5_000))
    values = helm_values(size)
    assert values["replicas"] == size.members == 2
    assert set(values) == {"replicas", "workers", "resources", "data"}


def test_workers_share_the_load_of_a_member():
    one, four = (size_of(Load(100_000, 500_000, workers=workers)) for workers in (1, 4))
    assert four.members - 1 == math.ceil((one.members - 1) / 4)
    assert four.partitions >= 2 * 4 * four.members
    assert four.member_memory_bytes > 3 * sizing.PROCESS_BYTES + one.member_memory_bytes
    values = helm_values(four)
    assert (values["workers"], values["resources"]["requests"]["cpu"]) == (4, "4")


def run(*arguments: str):
    return CliRunner().invoke(app, ["size", *arguments])


def test_the_command_prints_a_table_and_json():
    text = run("--series", "10000", "--rate", "5000")
    assert text.exit_code == 0, text.output
    assert "members" in text.output
    found = json.loads(run("--series", "10000", "--rate", "5000", "--json").stdout)
    assert found["state_bytes_a_series"] == sizing.state_bytes("standard", 1, "usual_range")
    of_surprise = run("--series", "10000", "--rate", "500000", "--decision", "surprise", "--json").stdout
    of_ranges = run("--series", "10000", "--rate", "500000", "--json").stdout
    assert json.loads(of_surprise)["cpu_cores"] < json.loads(of_ranges)["cpu_cores"]
    assert json.loads(run("--series", "1", "--rate", "1", "--helm").stdout)["replicas"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--series", "0", "--rate", "1"),
        ("--series", "10", "--rate", "-1"),
        ("--series", "10", "--rate", "nan"),
        ("--series", "10", "--rate", "1", "--detector", "other"),
        ("--rate", "1"),
    ],
)
def test_a_load_that_cannot_be_is_refused(arguments: tuple[str, ...]):
    found = run(*arguments)
    assert found.exit_code == 2 or isinstance(found.exception, InputError)
