"""Check of everything that is stored for damage, and removal of what can be computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from sqlalchemy import Connection

from pipeline.config.schema import Config
from pipeline.core.errors import DamagedState, InputError
from pipeline.core.types import Partition
from pipeline.engine.offloaded_state import WARM_START_PARTITION
from pipeline.models.registry import require_usable
from storage.history.reader import HistoryReader
from storage.model_store import models
from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import offloaded_series, positions, snapshots


class DamageKind(StrEnum):
    """Kinds of stored rows and files that are checked."""

    SNAPSHOT = "snapshot"
    SERIES_STATE = "series_state"
    POSITION = "position"
    MODEL = "model"
    ANOMALY = "anomaly"
    HISTORY = "history"


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged row or file. ``remove`` deletes it, and is None for what cannot be computed again."""

    kind: DamageKind
    where: str
    problem: str
    advice: str
    remove: Callable[[Connection], None] | None = None


def check_storage(config: Config, database: Database) -> Iterator[Damage]:
    """Yield what is damaged: snapshots, series states, positions, models, anomalies, history."""
    yield from _snapshots(database)
    yield from _series_states(database)
    yield from _models(database)
    yield from _anomalies(database)
    for problem in HistoryReader(config.history_path).damaged():
        path, _, reason = problem.partition(": ")
        yield Damage(
            DamageKind.HISTORY,
            path,
            reason,
            "restore the file from a backup or delete it; commands that read the history skip it",
        )


def repair_storage(database: Database, found: list[Damage]) -> int:
    """Delete what only costs a warm-up, and return the number of deleted rows."""
    removable = [damage.remove for damage in found if damage.remove is not None]
    for remove in removable:
        with database.begin() as connection:
            remove(connection)
    return len(removable)


def _snapshots(database: Database) -> Iterator[Damage]:
    with database.read() as connection:
        known = {(one.stream, one.partition): one for one in positions.all_of(connection)}
        stored = snapshots.partitions(connection)
        for reader, partition in stored:
            try:
                offset = snapshots.check(connection, reader, partition)
                position = known.get((reader, partition))
                if position is None or position.next_offset is None or offset > position.next_offset:
                    raise DamagedState(f"the snapshot is of offset {offset}, after the position")
            except DamagedState as error:
                yield Damage(
                    DamageKind.SNAPSHOT,
                    f"{reader} {partition}",
                    str(error),
                    "the daemon does not use it; --repair deletes it",
                    _Remove(reader, partition),
                )
    for (reader, partition), position in known.items():
        read = position.next_offset is not None and position.next_offset != position.start_offset
        if read and partition != WARM_START_PARTITION and (reader, partition) not in stored:
            yield Damage(
                DamageKind.POSITION,
                f"{reader} {partition}",
                f"the position {position.next_offset} has no snapshot",
                f"the daemon reads the partition again from offset {position.start_offset}, if the "
                f"source holds it",
            )


def _series_states(database: Database) -> Iterator[Damage]:
    with database.read() as connection:
        for reader, partition, key, series in offloaded_series.damaged(connection):
            yield Damage(
                DamageKind.SERIES_STATE,
                f"{reader} {partition} {series}",
                "the state does not match its checksum",
                "the series starts again with a warm-up; --repair deletes the state",
                _RemoveSeries(reader, partition, key),
            )


def _models(database: Database) -> Iterator[Damage]:
    with database.read() as connection:
        stored = models.query(connection)
    for model in stored:
        try:
            require_usable(model)
        except InputError as error:
            yield Damage(
                DamageKind.MODEL,
                f"{model.stream} {model.version}",
                str(error),
                f"restore {model.path} from a backup, or roll back: forewatch models rollback",
            )


def _anomalies(database: Database) -> Iterator[Damage]:
    with database.read() as connection:
        found = anomalies.damaged(connection)
    for id_, problem in found:
        yield Damage(
            DamageKind.ANOMALY,
            str(id_),
            problem,
            "commands and the daemon skip it; --repair deletes it",
            partial(anomalies.remove, id_=id_),
        )


@dataclass(frozen=True, slots=True)
class _Remove:
    reader: str
    partition: Partition

    def __call__(self, connection: Connection) -> None:
        snapshots.remove(connection, self.reader, self.partition)


@dataclass(frozen=True, slots=True)
class _RemoveSeries:
    reader: str
    partition: Partition
    key: bytes

    def __call__(self, connection: Connection) -> None:
        offloaded_series.remove(connection, self.reader, self.partition, self.key)
