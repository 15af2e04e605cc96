"""A record that is put into a spool again is there once, wherever a process stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.sources.push import inbox as inbox_module
from pipeline.sources.push.inbox import Inbox, put_again
from pipeline.sources.push.segments import Entry
from pipeline.sources.push.spool import Spool, SpoolFullError


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "LOOK_SECONDS", 0.0)


def entry(body: bytes) -> Entry:
    return Entry(5, 1, "text/plain", 0, body)


def opened(folder: Path, do: Callable[[Spool, Inbox], object]) -> list[Entry]:
    """Open a spool, do something, and return its records; a kill ends it."""
    spool = Spool(folder, 1 << 24)
    try:
        do(spool, Inbox(spool))
    except KilledError:
        pass
    finally:
        found = spool.read(0, 100)
        spool.close()
    return [one for _, one in found]


def take(_: Spool, box: Inbox) -> None:
    box.take()


def test_records_are_taken_once_and_in_the_order_of_names(tmp_path: Path) -> None:
    assert opened(tmp_path, take) == []
    put_again(tmp_path, "2", entry(b"second"))
    put_again(tmp_path, "1", entry(b"first"))
    found = opened(tmp_path, take)
    assert [(one.body, one.received_ns) for one in found] == [(b"first", 5), (b"second", 5)]
    assert found[0].content_type == "text/plain; forewatch-replay=1"
    put_again(tmp_path, "1", found[0])
    assert len(opened(tmp_path, take)) == 2
    assert list((tmp_path / "again").iterdir()) == []


@pytest.mark.parametrize("place", ["append", "note", "unlink"])
def test_kills_between_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    opened(tmp_path, take)
    put_again(tmp_path, "1", entry(b"first"))

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        target = {"append": (Spool, "append"), "note": (Inbox, "_note"), "unlink": (Path, "unlink")}[place]
        patched.setattr(*target, killed)
        opened(tmp_path, take)
    put_again(tmp_path, "1", entry(b"first"))
    assert [one.body for one in opened(tmp_path, take)] == [b"first"]
    assert list((tmp_path / "again").iterdir()) == []


def test_a_full_spool_takes_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, take)
    put_again(tmp_path, "1", entry(b"first"))

    def full(*_: object) -> int:
        raise SpoolFullError

    with monkeypatch.context() as patched:
        patched.setattr(Spool, "append", full)
        assert opened(tmp_path, take) == []
    assert len(opened(tmp_path, take)) == 1


def test_a_damaged_record_is_set_aside(tmp_path: Path) -> None:
    opened(tmp_path, take)
    put_again(tmp_path, "1", entry(b"first"))
    path = tmp_path / "again" / "1.record"
    path.write_bytes(path.read_bytes()[:-1])
    assert opened(tmp_path, take) == []
    assert [one.name for one in (tmp_path / "again").iterdir()] == ["1.damaged"]


def test_only_a_spool_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="where the daemon of the stream runs"):
        put_again(tmp_path / "elsewhere", "1", entry(b""))


def test_old_names_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_NAMES", 2)
    opened(tmp_path, take)
    for name in "12345":
        put_again(tmp_path, name, entry(name.encode()))
    assert len(opened(tmp_path, take)) == 5
    opened(tmp_path, take)
    assert (tmp_path / "again.taken").read_text().split() == ["4", "5"]
    assert os.stat(tmp_path / "again.taken").st_size < 10
