"""Sessions of events in the files of a followed folder: across files, files that are moved away, silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import engine
from storage.stream_state import positions, snapshots
from tests.support.events import CYCLE, Event, cycles, saved_door_model
from tests.support.file_daemons import Running, running

START = 1_700_000_000


class Doors:
    """A followed folder of events of doors."""

    def __init__(self, folder: Path, idle: str, **changes: Any) -> None:
        self.folder = folder / "in"
        self.folder.mkdir()
        source = {"files": {"paths": [str(self.folder / "*.csv")], "follow": True}}
        form = {"csv": {"series": "door", "time": "t", "code": "event"}}
        events = {"idle": idle, "model": str(saved_door_model(folder))}
        self.streams = {"plant": {"source": source, "format": form, "events": events} | changes}

    def write(self, name: str, *found: Event) -> None:
        path = self.folder / name
        head = b"" if path.exists() else b"door,t,event\n"
        rows = (b"%s,%d,%s\n" % (door.encode(), START + at, code.encode()) for door, at, code in found)
        with path.open("ab") as file:
            file.write(head + b"".join(rows))


def told(one: Running) -> list[tuple[str, str, int]]:
    return [(a.series, str(a.cause), a.end_ns // 10**9 - START) for a in one.found("plant")]


def test_a_session_goes_on_after_its_file_is_moved_away(tmp_path: Path, sqlite_template: Path) -> None:
    doors = Doors(tmp_path, "1m")
    doors.write("1.csv", *cycles("a", 1), ("b", 10, "badge"), ("b", 11, "unlock"))
    with running(tmp_path, sqlite_template, doors.streams) as one:
        one.until(lambda: one.read("plant") == 7)
        (doors.folder / "1.csv").rename(tmp_path / "1.csv")
        one.until(lambda: one.buffered("plant") == 0)
        doors.write("2.csv", *(("b", 12 + n, code) for n, code in enumerate(CYCLE[2:])), *cycles("a", 1, 100))
        one.until(lambda: one.read("plant") == 15)
        doors.write("2.csv", *cycles("a", 1, 700))
        one.until(lambda: one.read("plant") == 20)
        one.until(lambda: one.buffered("plant") < 8)
    assert told(one) == []


def test_a_session_that_is_over_by_later_files_ends_with_its_file(
    tmp_path: Path, sqlite_template: Path
) -> None:
    doors = Doors(tmp_path, "1m")
    doors.write("1.csv", ("b", 10, "badge"), ("b", 11, "unlock"))
    with running(tmp_path, sqlite_template, doors.streams) as one:
        one.until(lambda: one.read("plant") == 2)
        doors.write("2.csv", *cycles("a", 2, 300))
        one.until(lambda: one.read("plant") == 12)
        (doors.folder / "1.csv").rename(tmp_path / "1.csv")
        one.until(lambda: one.found("plant"))
    assert told(one) == [("b", "missing_event", 11 + 60)]


def test_what_an_idle_file_ended_is_stored_at_once(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay from an earlier snapshot would give later rows of the file to the session that has ended."""
    monkeypatch.setattr(engine, "CHECK_SECONDS", 0.1)
    doors = Doors(tmp_path, "1m", idle_after="2m", lateness="5s")
    doors.write("1.csv", ("b", 10, "badge"), ("b", 11, "unlock"))
    with running(tmp_path, sqlite_template, doors.streams, snapshot_every="1h") as one:
        one.until(lambda: one.read("plant") == 2)
        doors.write("2.csv", *cycles("a", 2, 300))
        one.until(lambda: one.found("plant"))

        def stored() -> bool:
            with one.database.read() as connection:
                (first,) = [
                    at.partition
                    for at in positions.all_of(connection, "plant")
                    if at.partition.topic.endswith("1.csv")
                ]
                return snapshots.exists(connection, "plant", first)

        one.until(stored, seconds=20)
    assert told(one) == [("b", "missing_event", 11 + 60)]


def test_a_session_that_stops_with_the_folder_is_told_by_the_clock(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that went on in a later file is none of them."""
    monkeypatch.setattr(engine, "CHECK_SECONDS", 0.1)
    doors = Doors(tmp_path, "3s")
    doors.write("1.csv", *cycles("a", 1), ("b", 10, "badge"), ("b", 11, "unlock"))
    doors.write("2.csv", ("b", 12, "open"), ("b", 13, "close"), ("b", 14, "lock"), ("c", 14, "badge"))
    with running(tmp_path, sqlite_template, doors.streams) as one:
        one.until(lambda: one.read("plant") == 11)
        one.until(lambda: len(one.daemon._engines["plant"].parts.silence._seen) == 2)
        doors.write("2.csv", ("c", 15, "unlock"))
        one.until(lambda: one.found("plant"))
    assert told(one) == [("c", "missing_event", 15 + 3)]
