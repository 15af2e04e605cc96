"""Backfill on a Dask cluster: its parts are run and added up.

The database holds the state of each part: its position, and whether it is done. So nothing is lost with a
worker, the scheduler or this process: what is not done is submitted again, here or by the same command later.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.config.retraining import SCHEDULER, Cluster
from pipeline.config.schema import Config
from pipeline.core.errors import InputError
from pipeline.core.extras import require_cluster
from pipeline.core.secret_text import hide_user
from pipeline.core.types import Counts
from pipeline.core.usable_cores import usable_cores
from pipeline.database import open_database
from pipeline.jobs.cluster_session import ClusterSession
from pipeline.jobs.dask_workers import DaskWorkers
from pipeline.models.champion import champion_of
from pipeline.observability.progress_bar import Progress
from pipeline.services.backfill import BackfillReport, forget_dead_backfills
from pipeline.services.backfill_input import plan_backfill
from pipeline.services.backfill_plan import BackfillPlan, Shard
from pipeline.services.backfill_shard import (
    ShardReport,
    ShardTask,
    reader_of,
    versions_here,
)
from pipeline.services.scores_file import join_scores
from storage.sql.database import Database
from storage.stream_state import backfill_shards
from storage.stream_state import reader as stored_readers

if TYPE_CHECKING:
    pass

log = structlog.get_logger(__name__)


_LOCAL = re.compile(r"local(?::([1-9]\d{0,3}))?")


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """Value of ``--cluster``: local workers, or the address of a scheduler."""

    scheduler: str | None
    workers: int

    @staticmethod
    def of(text: str) -> ClusterChoice:
        """Return the choice of a text. Raises InputError."""
        if match := _LOCAL.fullmatch(text):
            return ClusterChoice(None, int(match[1]) if match[1] else usable_cores())
        if SCHEDULER.fullmatch(text):
            return ClusterChoice(text, 0)
        raise InputError(
            f"--cluster {hide_user(text)!r} is neither local, local:N nor the address of a Dask scheduler: "
            "tcp://host:8786 or tls://host:8786"
        )


@dataclass(slots=True)
class ClusterReport:
    """Result of a backfill on a cluster.

    ``resumed`` is the number of parts that an earlier run of the command has done.
    """

    report: BackfillReport
    shards: int
    workers: int
    resumed: int
    restarts: int
    run: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return self.report.as_dict() | {
            "run": self.run,
            "parts": self.shards,
            "parts_done_before": self.resumed,
            "workers": self.workers,
            "restarts": self.restarts,
        }


@dataclass(frozen=True, slots=True)
class ClusterBackfill:
    """Input of a backfill on a cluster: files, or a time range of the stream's topic."""

    config: Config
    stream: str
    files: tuple[str, ...] | None
    start_ns: int | None = None
    end_ns: int | None = None
    scores: Path | None = None

    def plan(self, database: Database) -> tuple[BackfillPlan, str]:
        """Return the plan, and the version of the model that all parts use."""
        champion = champion_of(database, self.stream, self.config.streams[self.stream])
        identity = (
            champion.provenance.config_hash,
            champion.provenance.model_version,
            champion.detector.state_version,
            str(self.scores),
        )
        plan = plan_backfill(self.config, self.stream, self.files, self.start_ns, self.end_ns, identity)
        return plan, champion.provenance.model_version

    def run(self, choice: ClusterChoice, progress: Progress) -> ClusterReport:
        """Run all parts, and return what they have found.

        Raises InputError, SourceError, StorageError and ClusterUnavailable.
        """
        require_cluster(local=choice.scheduler is None)
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # read when Dask is imported
        self._refuse_sqlite()
        started = time.monotonic()
        cluster = self._cluster(choice)
        with open_database(self.config) as database:
            plan, model = self.plan(database)
            log.info("backfill is planned", run=plan.run, parts=len(plan.shards), rows=plan.rows)
            for note in plan.notes:
                log.warning("a part of the backfill is large", reason=note)
            progress.expect(plan.rows)
            workers = DaskWorkers(cluster, choice.workers, "change --cluster")
            tasks = [self._task(plan, shard, model) for shard in plan.shards]
            session = ClusterSession(database, workers, tasks, plan, progress)
            try:
                reports = session.run()
            finally:
                workers.close()
            self._join_scores(database, plan, tasks, reports)
            self._forget(database, plan)
            for task in tasks if self.scores is not None else ():
                assert task.scores is not None
                task.scores.unlink(missing_ok=True)
        report = _sum(plan, reports, time.monotonic() - started)
        self._note_series_limit(reports)
        return ClusterReport(
            report, len(plan.shards), session.workers, session.resumed, session.restarts, plan.run
        )

    def _refuse_sqlite(self) -> None:
        if self.config.database.startswith("sqlite"):
            raise InputError(
                "--cluster needs PostgreSQL, since an SQLite database serves one process; "
                "write `database: postgresql+psycopg://user@host/name`, or leave out --cluster"
            )

    def _cluster(self, choice: ClusterChoice) -> Cluster:
        tls = self.config.cluster.tls if choice.scheduler and choice.scheduler.startswith("tls://") else None
        if choice.scheduler and choice.scheduler.startswith("tls://") and tls is None:
            raise InputError(
                f"--cluster {choice.scheduler} needs certificates; write "
                f"`cluster: {{scheduler: {choice.scheduler}, tls: {{ca: …, cert: …, key: …}}}}` in the config"
            )
        return Cluster(scheduler=choice.scheduler, tls=tls)

    def _task(self, plan: BackfillPlan, shard: Shard, model: str) -> ShardTask:
        scores = None
        if self.scores is not None:
            scores = self.scores.with_name(
                f"{self.scores.name}.part{shard.number}{self.scores.suffix}"
            ).absolute()
        return ShardTask(
            plan.run,
            self.stream,
            self.config,
            shard,
            self.files,
            self.start_ns,
            self.end_ns,
            model,
            versions_here(),
            scores,
        )

    def _join_scores(
        self,
        database: Database,
        plan: BackfillPlan,
        tasks: Sequence[ShardTask],
        reports: Sequence[ShardReport],
    ) -> None:
        """Join the files of scores. Raises InputError if one is missing."""
        if self.scores is None:
            return
        parts = [task.scores for task in tasks if task.scores is not None]
        for part, report in zip(parts, reports, strict=True):
            if report.counts.scored and not part.exists():
                self._forget(database, plan)
                raise InputError(
                    f"--scores: there is no {part}, which a worker has written; it must be on a disk "
                    "that every machine mounts at the same path. Run the command again: it begins anew"
                )
        join_scores([part for part in parts if part.exists()], self.scores)

    def _forget(self, database: Database, plan: BackfillPlan) -> None:
        """Delete what was kept to continue this backfill, and what dead ones have left."""
        with database.begin() as connection:
            for reader in stored_readers.names(connection, reader_of(self.stream, plan.run)):
                stored_readers.forget(connection, reader)
            backfill_shards.forget(connection, [plan.run])
        forget_dead_backfills(database, self.stream)

    def _note_series_limit(self, reports: Sequence[ShardReport]) -> None:
        most, series = self.config.streams[self.stream].max_series, sum(one.series for one in reports)
        if series > most:
            log.warning(
                "the parts of the backfill have more series together than max_series, which limits each part",
                stream=self.stream,
                series=series,
                max_series=most,
            )


def _sum(plan: BackfillPlan, reports: Sequence[ShardReport], seconds: float) -> BackfillReport:
    """Return one report of all parts.

    A row of another part of a divided file is no record that was filtered.
    """
    counts = sum((one.counts for one in reports), Counts())
    counts.filtered = plan.rows - counts.scored - counts.late - counts.duplicate - counts.dead_lettered
    counts.buffered = 0
    refused: Counter[str] = Counter()
    for one in reports:
        refused.update(one.refused)
    example = next((one.example for one in reports if one.example), "")
    return BackfillReport(
        plan.stream,
        counts,
        sum(one.anomalies for one in reports),
        seconds,
        dict(refused.most_common()),
        example,
    )
