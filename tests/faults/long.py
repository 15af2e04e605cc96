"""The long fault run: ``python -m tests.faults.long --minutes 20`` prints a table and one JSON line.

Storms with other seeds, numbers of members and batch sizes follow each other on one broker and one PostgreSQL
until the time is over; each must balance its account. Every second storm is the one with all troubles: both
servers restart, a member has a wrong address, snapshots are damaged, clocks are wrong, event time jumps, and
the messages of a receiver are compared with the anomalies. Exit code 1 if an account does not balance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
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
from tests.faults.troubles import Troubles
from tests.support.kafka_server import Topics, faulty_broker
from tests.support.postgres_server import create_database, running_postgres
from tests.support.receiver import Receiver


@dataclass(frozen=True)
class Scenario:
    name: str
    members: int
    partitions: int
    kills: int
    freezes: int
    changes: dict[str, Any]
    troubles: bool = False


ALL_TROUBLES = Scenario(
    "three members, all troubles",
    3,
    6,
    14,
    5,
    {"alerts": {"max_age": None, "storm": None, "budget": None}},
    troubles=True,
)
SCENARIOS = (
    Scenario("one member after the other", 1, 2, 10, 0, {}),
    Scenario("two members", 2, 3, 12, 4, {}),
    Scenario("three members", 3, 6, 14, 4, {}),
    Scenario("two members, small batches", 2, 3, 12, 2, {"engine": {"max_batch": 20}}),
    Scenario("two members, rare snapshots", 2, 3, 12, 2, {"storage": {"snapshot_every": "10s"}}),
    Scenario("two members, tier standard", 2, 3, 12, 4, {"detector": "standard"}),
)


#: Figures that are added up.
SUMS = ("kills", "freezes", "records", "lost", "twice", "conflicting", "anomalies", "untold", "fenced")


def run(minutes: float, folder: Path, scenarios: Sequence[Scenario] = SCENARIOS) -> Iterator[Figures]:
    """Yield the figures of each storm, until the time is over."""
    with faulty_broker(folder / "kafka") as broker, running_postgres() as postgres:
        topics = Topics(broker.address)
        deadline = time.monotonic() + 60 * minutes
        for number, scenario in _rounds(deadline, scenarios):
            jump_every = 60 if scenario.troubles else None
            logs = [make_log(n, 400, seed=number, jump_every=jump_every) for n in range(scenario.partitions)]
            url = create_database(postgres)
            stage = Stage(
                folder / f"storm{number}",
                topics,
                url,
                logs,
                name=scenario.name,
                **scenario.changes,
            )
            stage.database.upgrade()
            try:
                with Receiver() as receiver:
                    if scenario.troubles:
                        stage.troubles = Troubles(stage, broker, postgres, receiver, number)
                    storm(stage, scenario.kills, scenario.freezes, members=scenario.members, seed=number)
                yield stage.account()
            finally:
                stage.close()
            if not stage.figures.problems:
                shutil.rmtree(stage.folder)
        topics.close()


def _rounds(deadline: float, scenarios: Sequence[Scenario]) -> Iterator[tuple[int, Scenario]]:
    """Yield the number and the scenario of each storm."""
    number = 0
    while not number or time.monotonic() < deadline:
        yield number, scenarios[number % len(scenarios)]
        number += 1


def _plan(only: str | None) -> list[Scenario]:
    """Return the scenarios of a round: the one with all troubles before each of the others."""
    every = [one for scenario in SCENARIOS for one in (ALL_TROUBLES, scenario)]
    return every if only is None else [one for one in (ALL_TROUBLES, *SCENARIOS) if one.name == only]


def table(found: list[Figures]) -> str:
    """A row a scenario, in Markdown."""
    lines = [
        "| scenario | storms | kills | freezes | records | lost | twice | conflicting | alerted anomalies "
        "| untold | fenced | takeover p50 | takeover p95 | takeover max |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(figures.scenario for figures in found):
        group = [figures for figures in found if figures.scenario == name]
        lines.append(_row(name, group))
    return "\n".join([*lines, _row("all", found)])


def _row(name: str, group: list[Figures]) -> str:
    sums = [sum(getattr(f, field) for f in group) for field in SUMS]
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


def _recoveries(found: list[Figures]) -> dict[str, dict[str, float]]:
    """Return p50, p95, maximum and number of the times to the next commit, by kind of trouble."""
    every: dict[str, list[float]] = {}
    for figures in found:
        for name, some in figures.recoveries.items():
            every.setdefault(name, []).extend(some)
    shares = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {
        name: {key: round(at(some, share), 2) for key, share in shares.items()} | {"times": len(some)}
        for name, some in every.items()
    }


def at(seconds: list[float], share: float) -> float:
    """Return the smallest of ``seconds`` that at least ``share`` of them do not exceed."""
    return sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", choices=[scenario.name for scenario in (ALL_TROUBLES, *SCENARIOS)])
    options = parser.parse_args()
    began = time.monotonic()
    scenarios = _plan(options.only)
    folder = Path(tempfile.mkdtemp(prefix="forewatch-faults-"))
    found: list[Figures] = []
    try:
        for figures in run(options.minutes, folder, scenarios):
            found.append(figures)
            print(
                f"{time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}: {figures.scenario}: "
                f"{figures.kills} kills, {figures.freezes} freezes, {figures.anomalies} alerted anomalies, "
                f"scores differ by {figures.score_difference:.1e}, problems: {figures.problems or 'none'}",
                file=sys.stderr,
            )
    except BaseException:
        print(f"the files of the last storm are kept in {folder}", file=sys.stderr)
        raise
    if any(figures.problems for figures in found):
        print(f"the files of the storms with problems are kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    phases: Counter[str] = sum((figures.phases for figures in found), Counter())
    print(table(found))
    print("\nphases: " + ", ".join(f"{name} {count}" for name, count in sorted(phases.items())))
    problems = [problem for figures in found for problem in figures.problems]
    totals = {field: sum(getattr(f, field) for f in found) for field in SUMS}
    recoveries = _recoveries(found)
    troubles: Counter[str] = sum((figures.troubles for figures in found), Counter())
    print("\ntroubles: " + ", ".join(f"{name} {count}" for name, count in sorted(troubles.items())))
    for name, seconds in recoveries.items():
        print(f"seconds to the next commit after {name}: {seconds}")
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
                "recoveries_s": recoveries,
                "score_difference": max(figures.score_difference for figures in found),
                "load": os.getloadavg(),
                "seconds": round(time.monotonic() - began),
                "problems": problems,
            }
        )
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
