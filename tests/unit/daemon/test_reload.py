"""A changed config is taken once it is valid and whole; a broken one changes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.config.template import template
from pipeline.core.errors import ConfigError, StorageUnavailable
from pipeline.daemon import reload
from pipeline.daemon.reload import Reloader


class Daemon:
    def __init__(self, path: Path, *, watch: bool) -> None:
        self.path = path
        self.path.write_text(template("sensor"))
        self.taken: list[Config] = []
        self.outcomes: list[str] = []
        self.reloader = Reloader(
            path, load_config(path), self.use_config, watch=watch, outcome=self.outcomes.append
        )

    def use_config(self, config: Config) -> None:
        if config.engine.max_batch == 13:
            raise ConfigError("engine.max_batch: not 13")
        self.taken.append(config)

    def write(self, max_batch: object) -> None:
        self.path.write_text(f"engine: {{max_batch: {max_batch}}}\n" + template("sensor"))


@pytest.fixture
def daemon(tmp_path, monkeypatch) -> Daemon:
    monkeypatch.setattr(reload, "_CHECK_INTERVAL_SECONDS", 0.0)
    return Daemon(tmp_path / "forewatch.yaml", watch=True)


@pytest.fixture
def hup_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_change_is_taken_once_the_file_rests(daemon):
    daemon.reloader.poll()
    daemon.write(5)
    daemon.reloader.poll()
    assert daemon.taken == [], "it may still be written"
    for _ in range(3):
        daemon.reloader.poll()
    assert [config.engine.max_batch for config in daemon.taken] == [5]
    assert daemon.outcomes == ["taken"]


def test_a_broken_change_is_refused_and_the_next_good_one_taken(daemon):
    for content in ("no", 13, 7):
        daemon.write(content)
        for _ in range(3):
            daemon.reloader.poll()
    assert daemon.outcomes == ["refused", "refused", "taken"]
    assert [config.engine.max_batch for config in daemon.taken] == [7]


def test_a_file_that_is_away_for_a_moment_or_means_the_same_is_no_change(daemon):
    daemon.path.unlink()
    for _ in range(3):
        daemon.reloader.poll()
    daemon.path.write_text("# a comment more\n" + template("sensor"))
    for _ in range(3):
        daemon.reloader.poll()
    assert (daemon.taken, daemon.outcomes) == ([], [])


def test_a_reload_while_the_database_is_away_is_repeated(daemon, monkeypatch):
    monkeypatch.setattr("pipeline.daemon.reload._RETRY_SECONDS", 0.05)
    taken = daemon.reloader._take
    failures = [StorageUnavailable("away"), StorageUnavailable("away")]

    def take(config):
        if failures:
            raise failures.pop()
        taken(config)

    daemon.reloader._take = take
    daemon.reloader._on_hup(1, None)
    daemon.write(7)
    deadline = time.monotonic() + 120
    while failures and time.monotonic() < deadline:
        daemon.reloader.poll()
        time.sleep(0.01)
    time.sleep(0.1)
    daemon.reloader.poll()
    assert [config.engine.max_batch for config in daemon.taken] == [7]
    assert daemon.outcomes == ["taken"]


def test_sighup_reloads_at_once_and_without_it_nothing_does(tmp_path, hup_restored):
    daemon = Daemon(tmp_path / "forewatch.yaml", watch=False)
    daemon.reloader.install()
    daemon.write(9)
    daemon.reloader.poll()
    assert daemon.taken == []
    os.kill(os.getpid(), signal.SIGHUP)
    daemon.reloader.poll()
    daemon.reloader.poll()
    assert [config.engine.max_batch for config in daemon.taken] == [9]
