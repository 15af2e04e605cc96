"""The only loop: ownership of partitions, and one commit per batch."""

from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.engine.sink import Sink

__all__ = ["Engine", "Sink", "build_engine"]
