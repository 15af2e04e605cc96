"""A database that 0.1.0 left behind when it was killed (see ``tests/fixtures/v0_1_0``): the daemon of today
goes on as if nothing had happened.
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
import structlog
from ruamel.yaml import YAML
from sqlalchemy import make_url
from standardwebhooks import Webhook

from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.core.types import Anomaly, AnomalyState, Counts, Position
from pipeline.daemon.daemon import daemon
from pipeline.models import registry
from storage.alerting import deliveries, silences
from storage.history.reader import HistoryReader
from storage.model_store import jobs, models, monitor_state, quarantine
from storage.results import anomalies, dead_letters, faults, labels, late_records
from storage.sql.database import Database
from storage.stream_state import positions, snapshots
from tests.integration.test_cli_process import Shell
from tests.support.moved_database import page_commands
from tests.support.postgres_server import create_database, drop_database, tools_path
from tests.support.receiver import Received, Receiver

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0"
STREAMS = ("boiler", "pumps", "links", "ports", "quotes", "turbine", "basket")
SECRET = "whsec_" + base64.b64encode(b"for these tests and nothing else").decode()
#: What must not differ from an uninterrupted run: a score of another batch is another one in its last digits.
CLOSE = {"score": 1e-3, "surprise": 2e-2}

pytestmark = pytest.mark.timeout(200)


def unzip(source: Path, target: Path) -> None:
    with gzip.open(source) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file)


def put_config(folder: Path, database: str, hook: int, decision: str | None = "surprise") -> None:
    """Write the config of 0.1.0, with the key ``decision`` unless it is None."""
    text = (
        (OLD / "config.yaml")
        .read_text()
        .replace("sqlite:///forewatch.db", database)
        .replace("127.0.0.1:9/", f"127.0.0.1:{hook}/")
    )
    tree = YAML(typ="safe").load(text)
    for stream in tree["streams"].values():
        # The events of this database get older with every day.
        stream["alerts"] = stream.get("alerts", {}) | {"max_age": None}
        if decision is not None:
            stream["decision"] = decision
    (folder / "forewatch.yaml").write_text(json.dumps(tree))
    (folder / "secret").write_text(SECRET)


def put_input(folder: Path) -> None:
    for packed in (OLD / "old").iterdir():
        unzip(packed, folder / packed.stem)


def continue_input(folder: Path) -> None:
    for packed in (OLD / "new").iterdir():
        with (folder / packed.stem).open("ab") as file:
            file.write(gzip.decompress(packed.read_bytes()))


def rows(folder: Path, stream: str) -> int:
    return (folder / f"{stream}.csv").read_bytes().count(b"\n") - 1


@contextmanager
def running(config: Config) -> Iterator[None]:
    """The daemon's loop in a thread."""
    stopping = threading.Event()
    with daemon(config, stopping) as process:
        loop = threading.Thread(target=process.run, args=(lambda: None,))
        loop.start()
        try:
            yield
        finally:
            stopping.set()
            loop.join()


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 120.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def at(database: Database) -> dict[str, Position]:
    with database.read() as connection:
        return {one.stream: one for one in positions.all_of(connection) if one.stream in STREAMS}


def caught_up(database: Database, folder: Path) -> bool:
    return {name: one.next_offset for name, one in at(database).items()} == {
        name: rows(folder, name) for name in STREAMS
    }


def of(database: Database) -> dict[Any, Anomaly]:
    with database.read() as connection:
        return {one.id: one for one in anomalies.query(connection)}


@dataclass
class Uninterrupted:
    """Results of a daemon of today that reads all of the input from the beginning."""

    folder: Path
    positions: dict[str, Position]
    anomalies: dict[Any, Anomaly]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Uninterrupted:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(sqlite_template, folder / "forewatch.db")
        unzip(OLD / "forewatch.db.gz", folder / "old.db")
        shutil.copytree(OLD / "models", folder / "models")
        put_config(folder, "sqlite:///forewatch.db", 9)
        put_input(folder)
        continue_input(folder)
        database, old = Database("sqlite:///forewatch.db"), Database("sqlite:///old.db")
        with old.read() as source, database.begin() as connection:
            (model,) = models.query(source)
            models.add(connection, model)
            models.record_promotion(
                connection,
                models.current_champion(connection, "boiler"),
                "promote",
                model.version,
                author="",
                reason="",
                now_ns=1,
            )
        old.close()
        with running(load_config(Path("forewatch.yaml"))):
            wait_for(lambda: caught_up(database, folder), "all of it is read")
        found = Uninterrupted(folder, at(database), of(database))
        database.close()
    return found


def load_old_rows(url: str) -> None:
    """Make the tables and rows of 0.1.0 in an empty PostgreSQL."""
    with psycopg.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
    ) as connection:
        connection.execute(gzip.decompress((OLD / "postgresql.sql.gz").read_bytes()))  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def left(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Shell, Receiver, Database]]:
    """The upgraded database of 0.1.0, with a webhook that answers again."""
    if request.param == "sqlite":
        url, shown = f"sqlite:///{tmp_path}/forewatch.db", "sqlite:///forewatch.db"
        unzip(OLD / "forewatch.db.gz", tmp_path / "forewatch.db")
    else:
        url = shown = request.getfixturevalue("postgres_url")
        load_old_rows(url)
    for name in ("models", "history"):
        shutil.copytree(OLD / name, tmp_path / name)
    put_input(tmp_path)
    monkeypatch.chdir(tmp_path)
    with Receiver() as receiver:
        put_config(tmp_path, shown, receiver.port)
        shell = Shell(tmp_path)
        shell.run("db", "upgrade")
        database = Database(url)
        yield shell, receiver, database
        database.close()


@pytest.fixture
def moved(
    postgres_server,
    postgres_template: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Shell, Receiver, Database]]:
    """The database of 0.1.0, restored in place of one of today by the commands of the page."""
    monkeypatch.setenv("PATH", tools_path())
    load_old_rows(postgres_url)
    old, new = tmp_path / "old-machine", tmp_path / "new-machine"
    for folder in (old, new):
        folder.mkdir()
        put_input(folder)
    put_config(old, postgres_url, 9)
    for command in page_commands("backup"):
        Shell(old).run(*command.split())
    shutil.copytree(old / "backups", new / "backups")
    for name in ("models", "history"):
        shutil.copytree(OLD / name, new / name)
    monkeypatch.chdir(new)
    url = create_database(postgres_server, postgres_template)
    with Receiver() as receiver:
        put_config(new, url, receiver.port)
        shell = Shell(new)
        for name in ("restore", "upgrade"):
            for command in page_commands(name):
                shell.run(*command.split())
        database = Database(url)
        yield shell, receiver, database
        database.close()
    drop_database(postgres_server, url)


@pytest.mark.postgres
def test_a_backup_of_an_old_schema_goes_on_on_a_new_machine(moved, uninterrupted):
    _, _, database = moved
    with database.read() as connection:
        viewed = connection.exec_driver_sql("SELECT count(*) FROM forewatch_anomalies").scalar_one()
    assert viewed == len(of(database)) > 0
    goes_on(moved, uninterrupted)


def test_the_daemon_of_today_goes_on(left, uninterrupted):
    goes_on(left, uninterrupted)


def goes_on(left: tuple[Shell, Receiver, Database], uninterrupted: Uninterrupted) -> None:
    """Let the daemon of today go on, and compare its verdicts with those of one that never stopped."""
    shell, receiver, database = left
    before, known, waiting = at(database), of(database), Waiting(database)
    with structlog.testing.capture_logs() as said, running(load_config(Path("forewatch.yaml"))):
        wait_for(
            lambda: (
                {name: one.epoch for name, one in at(database).items()}
                == {n: one.epoch + 1 for n, one in before.items()}
            ),
            "taken over",
        )
        wait_for(lambda: waiting.delivered(database), "what waited is delivered")
        assert {n: one.next_offset for n, one in at(database).items()} == {
            n: one.next_offset for n, one in before.items()
        }
        continue_input(shell.folder)
        wait_for(lambda: caught_up(database, shell.folder), "all of it is read")
    assert not [one for one in said if "anew" in one["event"] or "cannot be used" in one["event"]]

    positions_went_on(before, at(database), uninterrupted)
    state_was_kept(shell.folder, before, uninterrupted)
    anomalies_were_closed(known, of(database), uninterrupted)
    waiting.verify(receiver.received)


def test_a_config_without_a_decision_crosses_over(left, uninterrupted):
    """The forecast goes on, open anomalies are closed, nothing is lost, and usual ranges start empty."""
    shell, receiver, database = left
    put_config(shell.folder, load_config(Path("forewatch.yaml")).database, receiver.port, decision=None)
    before, known, waiting = at(database), of(database), Waiting(database)
    with structlog.testing.capture_logs() as said, running(load_config(Path("forewatch.yaml"))):
        wait_for(lambda: waiting.delivered(database), "what waited is delivered")
        continue_input(shell.folder)
        wait_for(lambda: caught_up(database, shell.folder), "all of it is read")
    converted = [one for one in said if "is converted: usual ranges start empty" in one["event"]]
    assert {one["stream"] for one in converted} == set(STREAMS)
    assert not [one for one in said if "is reset" in one["event"] or "cannot be used" in one["event"]]

    positions_went_on(before, at(database), uninterrupted)
    forecast_was_kept(shell.folder, before, uninterrupted)
    now = of(database)
    for one in known.values():
        if one.state is AnomalyState.CLOSED:
            assert now[one.id] == one, "what was over stays as it was"
        else:
            after = now[one.id]
            assert after.state in (AnomalyState.OPEN, AnomalyState.CLOSED)
            assert (after.cause, after.peak_ns, after.observed) == (one.cause, one.peak_ns, one.observed)
    assert all(one.cause == "static_limit" for one in now.values() if one.id not in known)
    waiting.verify(receiver.received)


def forecast_was_kept(folder: Path, before: dict[str, Position], uninterrupted: Uninterrupted) -> None:
    """The forecasts on what came after the upgrade are those of a daemon that was never interrupted."""
    for name, position in before.items():
        ours, theirs = (
            history(where, name, position.next_offset or 0) for where in (folder, uninterrupted.folder)
        )
        assert ours[["series", "time", "offset"]].equals(theirs[["series", "time", "offset"]])
        for column in [c for c in ours.columns if c.startswith("expected")]:
            mine, other = ours[column].to_numpy(float), theirs[column].to_numpy(float)
            np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3, err_msg=f"{name}: {column}")


def positions_went_on(
    before: dict[str, Position], after: dict[str, Position], uninterrupted: Uninterrupted
) -> None:
    """Nothing twice, nothing left out."""
    assert before.keys() == after.keys() == set(STREAMS)
    for name, one in after.items():
        was, whole = before[name], uninterrupted.positions[name]
        assert (one.epoch, one.start_offset, one.identity) == (was.epoch + 1, was.start_offset, was.identity)
        assert (one.next_offset, one.counts, one.watermark_ns) == (
            whole.next_offset,
            whole.counts,
            whole.watermark_ns,
        )
        assert one.counts.read() == one.next_offset
        assert was.counts != Counts()


def state_was_kept(folder: Path, before: dict[str, Position], uninterrupted: Uninterrupted) -> None:
    """The verdicts on what came after the upgrade are those of a daemon that was never interrupted."""
    for name, position in before.items():
        ours, theirs = (
            history(where, name, position.next_offset or 0) for where in (folder, uninterrupted.folder)
        )
        assert len(ours) >= 30
        assert ours[["series", "time", "offset"]].equals(theirs[["series", "time", "offset"]])
        for column in ours.columns.difference(["series", "time", "offset", "model", "microseconds"]):
            mine, other = ours[column].to_numpy(float), theirs[column].to_numpy(float)
            np.testing.assert_allclose(
                mine, other, rtol=1e-3, atol=CLOSE.get(column, 1e-3), err_msg=f"{name}: {column}"
            )
        assert ours["model"].equals(theirs["model"])
        first = ours.groupby("series").head(1)
        # The series that comes with a past or out of the database is known, too.
        assert (first["guard"] > 1).all(), f"{name} begins cold"


def history(folder: Path, stream: str, offset: int) -> pd.DataFrame:
    table = HistoryReader(str(folder / "history")).read(stream).to_pandas()
    table = table[table["offset"] >= offset].astype({"series": str, "model": str})
    return table.sort_values(["series", "time"], ignore_index=True)


def anomalies_were_closed(
    known: dict[Any, Anomaly], now: dict[Any, Anomaly], uninterrupted: Uninterrupted
) -> None:
    opened = {one.stream: one for one in known.values() if one.state is AnomalyState.OPEN}
    assert opened.keys() == set(STREAMS)
    for one in opened.values():
        assert now[one.id].state is AnomalyState.CLOSED
        assert now[one.id].revision > one.revision
    assert all(one == now[one.id] for one in known.values() if one.state is AnomalyState.CLOSED), (
        "what was over stays as it was"
    )
    assert {i: _interval(one) for i, one in now.items()} == {
        i: _interval(one) for i, one in uninterrupted.anomalies.items()
    }


def _interval(one: Anomaly) -> tuple[Any, ...]:
    # 0.1.0 took the way back of a price for the peak of its anomaly.
    return (
        one.stream,
        one.series,
        one.state,
        one.start_ns,
        one.end_ns,
        one.peak_ns if one.stream != "quotes" else 0,
        one.first_offset,
        one.last_offset,
        one.model_version,
    )


class Waiting:
    """What 0.1.0 could not deliver to the webhook any more: messages that failed, and events that nobody had
    routed yet.
    """

    def __init__(self, database: Database) -> None:
        with database.read() as connection:
            self.messages = {one.id for one in deliveries.query(connection, endpoint="hook", state="pending")}
            found = connection.exec_driver_sql(
                "SELECT subject FROM alert_events WHERE state = 'pending' AND kind = 'anomaly'"
            )
            self.subjects = {str(one).replace("-", "") for (one,) in found}
        assert self.messages
        assert len(self.subjects) >= len(STREAMS)

    def delivered(self, database: Database) -> bool:
        with database.read() as connection:
            left = connection.exec_driver_sql(
                "SELECT count(*) FROM alert_events WHERE state = 'pending'"
            ).scalar_one()
            return not left and not deliveries.query(connection, endpoint="hook", state="pending")

    def verify(self, received: list[Received]) -> None:
        webhook = Webhook(SECRET)
        for one in received:
            webhook.verify(one.body, one.headers)
        assert {f"msg_{one.hex}" for one in self.messages} <= {one.headers["webhook-id"] for one in received}
        bodies = b"".join(one.body for one in received).decode().replace("-", "")
        assert not [subject for subject in self.subjects if subject not in bodies]


def test_the_commands_of_today_read_what_is_old(left):
    shell, _, database = left
    with database.read() as connection:
        letters = {one.id for one in dead_letters.query(connection)}
        known = {
            "anomalies": {str(one.id) for one in anomalies.query(connection)},
            "silences": {str(one.id) for one in silences.query(connection)},
            "jobs": {str(one.id) for one in jobs.query(connection)},
            "models": {one.version for one in models.query(connection)},
            "deliveries": {str(one.id) for one in deliveries.query(connection)},
        }
        (open_fault,) = [
            one for one in faults.query(connection) if one.ended_ns is None and one.stream == "broken"
        ]
        assert labels.of(connection, list(of(database)))
        assert late_records.query(connection)
        assert monitor_state.power(connection, "boiler")
        assert monitor_state.drift(connection, "boiler")
        assert quarantine.query(connection, stream="boiler")
        assert {name: len(snapshots.offsets(connection, name)) for name in STREAMS} == dict.fromkeys(
            STREAMS, 1
        )
        (model,) = models.query(connection)
        assert models.current_champion(connection, "boiler").to_version == model.version
    assert registry.weights_of(model.path, model.sha256)
    assert registry.manifest_of(model.path, model.sha256)["stream"] == "boiler"
    many = ("--limit", 1000)
    said = shell.json_of_each(
        [
            *(
                ("anomalies", "list", *many),
                ("silences", "list", "--all"),
                ("jobs", "list", *many),
                ("models", "list", *many),
            ),
            *(
                ("deliveries", "list", *many),
                ("deadletters", "list", "--all", *many),
                ("faults", "list", "--open"),
                ("models", "list", "--changes"),
            ),
            *(
                ("alerts", "list", "--all", *many),
                ("alerts", "ledger"),
                ("endpoints", "list"),
                ("quarantine", "list", "--by-hand"),
            ),
            *(
                ("power", "--stream", "boiler", "--kept"),
                ("models", "show", model.version),
                ("jobs", "show", 1),
            ),
        ]
    )
    texts = [json.dumps(one) for one in said]
    for (name, ids), text in zip(
        known.items(), [texts[0], texts[1], texts[2], texts[3], texts[4]], strict=True
    ):
        assert all(one in text for one in ids), name
    assert {one["id"] for one in said[5]} == letters
    assert open_fault.message in [one["message"] for one in said[6]]
    assert model.version in texts[7]
    assert {one["stream"] for one in said[8]} >= set(STREAMS)
    assert {one["state"] for one in said[10]} & {"failing"}
    assert [one["why"] for one in said[11]].count("maintenance") == 1
