"""The long fault run: ``python -m tests.faults.long --minutes 10`` prints a table and one JSON line.

Storms with other seeds, numbers of members and batch sizes follow each other on one broker and one PostgreSQL
until the time is over; each must balance its account. Exit code 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.feed import make_log
from tests.faults.stage import Figures, Stage
from tests.faults.storm import storm
from tests.support.kafka_server import Topics, running_broker
from tests.support.postgres_server import create_database, running_postgres


@dataclass(frozen=True)
class Scenario:
    name: str
    members: int
    partitions: int
    kills: int
    freezes: int
    changes: dict[str, Any]


SCENARIOS = (
    Scenario("one member after the other", 1, 2, 10, 0, {}),
    Scenario("two members", 2, 3, 12, 4, {}),
    Scenario("three members", 3, 6, 14, 4, {}),
    Scenario("two members, small batches", 2, 3, 12, 2, {"engine": {"max_batch": 20}}),
    Scenario("two members, rare snapshots", 2, 3, 12, 2, {"storage": {"snapshot_every": "10s"}}),
)


def run(minutes: float, folder: Path, scenarios: Sequence[Scenario] = SCENARIOS) -> Iterator[Figures]:
    """One ``Figures`` per storm, until the time is over (each scenario at least once)."""
    with running_broker(folder / "kafka") as broker, running_postgres() as postgres:
        topics = Topics(broker)
        deadline = time.monotonic() + 60 * minutes
        for number, scenario in _rounds(deadline, scenarios):
            logs = [make_log(n, 400, seed=number) for n in range(scenario.partitions)]
            url = create_database(postgres)
            stage = Stage(
                folder / f"storm{number}", topics, url, logs, name=scenario.name, **scenario.changes
            )
            stage.database.upgrade()
            try:
                storm(stage, scenario.kills, scenario.freezes, members=scenario.members, seed=number)
                yield stage.account()
            finally:
                stage.close()
            shutil.rmtree(stage.folder)
        topics.close()


def _rounds(deadline: float, scenarios: Sequence[Scenario]) -> Iterator[tuple[int, Scenario]]:
    number = 0
    while number < len(scenarios) or time.monotonic() < deadline:
        yield number, scenarios[number % len(scenarios)]
        number += 1


def table(found: list[Figures]) -> str:
    """A row a scenario, in Markdown."""
    lines = [
        "| scenario | storms | kills | freezes | records | lost | twice | fenced | takeover p50 | takeover p95 | takeover max |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(figures.scenario for figures in found):
        group = [figures for figures in found if figures.scenario == name]
        lines.append(_row(name, group))
    return "\n".join([*lines, _row("all", found)])


def _row(name: str, group: list[Figures]) -> str:
    sums = [
        sum(getattr(f, field) for f in group)
        for field in ("kills", "freezes", "records", "lost", "twice", "fenced")
    ]
    takeovers = [seconds for figures in group for seconds in figures.takeovers]
    return (
        "| "
        + " | ".join(
            [
                name,
                str(len(group)),
                *map(str, sums),
                *(f"{at(takeovers, share):.2f} s" for share in (0.5, 0.95, 1.0)),
            ]
        )
        + " |"
    )


def at(seconds: list[float], share: float) -> float:
    """Return the smallest of ``seconds`` that at least ``share`` of them do not exceed."""
    return sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", choices=[scenario.name for scenario in SCENARIOS])
    options = parser.parse_args()
    scenarios = [one for one in SCENARIOS if options.only in (None, one.name)]
    folder = Path(tempfile.mkdtemp(prefix="forewatch-faults-"))
    found: list[Figures] = []
    try:
        for figures in run(options.minutes, folder, scenarios):
            found.append(figures)
            print(
                f"{figures.scenario}: {figures.kills} kills, {figures.freezes} freezes, problems: {figures.problems or 'none'}",
                file=sys.stderr,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    phases: Counter[str] = sum((figures.phases for figures in found), Counter())
    print(table(found))
    print("\nphases: " + ", ".join(f"{name} {count}" for name, count in sorted(phases.items())))
    problems = [problem for figures in found for problem in figures.problems]
    totals = {
        field: sum(getattr(f, field) for f in found)
        for field in ("kills", "freezes", "records", "lost", "twice", "fenced")
    }
    takeovers = [seconds for figures in found for seconds in figures.takeovers]
    print(
        json.dumps(
            {
                "benchmark": "faults",
                **totals,
                "takeovers": len(takeovers),
                "takeover_p50_s": round(at(takeovers, 0.5), 3),
                "takeover_p95_s": round(at(takeovers, 0.95), 3),
                "takeover_max_s": round(max(takeovers), 3),
                "problems": problems,
            }
        )
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
