"""Event time: reordering, late and duplicate points, gaps, aggregation."""

from pipeline.windows.event_time import EventTimeProcessor

__all__ = ["EventTimeProcessor"]
