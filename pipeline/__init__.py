"""forewatch: streaming anomaly detection, from a Kafka record to a committed, explained verdict.

>>> from pipeline import detect
>>> verdicts = detect(frame, time="ts", values=["temperature"])
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.services.dataframe import detect

# Read when numpy is imported. The loop is one thread; on its small matrices the threads of OpenBLAS only
# spin, and kept a second core busy for nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["detect"]


def __getattr__(name: str) -> Any:
    # pandas and the detectors take a second to import; ``forewatch --help`` should not wait for them.
    if name == "detect":
        from pipeline.services.dataframe import detect

        return detect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
