"""Imported once by the server that members are forked from: their imports, and their kernels compiled."""

from __future__ import annotations

import gc
from importlib import import_module

import alembic.runtime.migration  # noqa: F401
import numpy as np
import psycopg  # noqa: F401
import ruamel.yaml  # noqa: F401
import sqlalchemy.dialects.postgresql  # noqa: F401

import pipeline.daemon.daemon
import pipeline.sources.kafka.consumer  # noqa: F401
import tests.faults.member
import tests.support.forked_commands  # noqa: F401
from detectors import build
from detectors.composite.warmup import compile_kernels as compiled
from pipeline.cli.command_table import COMMANDS
from pipeline.config.schema import Config
from pipeline.core.types import Partition
from pipeline.models.champion import detector_spec
from pipeline.scoring.provenance import Provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records
from tests.faults.feed import config_tree, make_log


def warm() -> None:
    """Score some records, with no thread and no connection left behind."""
    stream = Config.model_validate(config_tree("sqlite:///none.db", {"memory": {}})).streams["plant"]
    detector = build(detector_spec(stream))
    compiled(detector)
    scorer = StreamScorer(Provenance("plant", ("v",), 1e-4, 3, "", ""), stream, detector)
    values = make_log(0, 20).values
    n = len(values)
    scorer.process(
        [Records(Partition("t", 0), 0, n, np.arange(n), np.zeros(n, np.int64), values, [None] * n)]
    )


warm()
for _module, _ in COMMANDS.values():
    import_module(f"pipeline.cli.commands.{_module}")
# Collections of the children leave these objects alone, and so the memory that they share.
gc.collect()
gc.freeze()
