"""Source of this machine's own readings: one row each ``every``, one column per measure.

============== =======================================================================
time           when, aligned to ``every`` (timestamp, UTC)
host           this machine's name
cpu            busy time of all cores, percent
load           processes that want to run, of the last minute, per core
memory, swap   in use, percent
disk_used      of the file system of the working directory, percent
disk_read,     bytes per second of all disks
disk_written
net_received,  bytes per second of all interfaces but the loopback
net_sent
============== =======================================================================

The format for it is ``csv: {series: host, time: time, values: [cpu, memory, …]}``. The offset of a row is its
time divided by ``every``, so a restart continues at the current time and skips the offsets in between.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence

import numpy as np
import psutil
import pyarrow as pa

from pipeline.config import schema as models
from pipeline.core.durations import to_nanoseconds
from pipeline.core.errors import SourceError
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, TableRecords

RATES = ("disk_read", "disk_written", "net_received", "net_sent")
SCHEMA = pa.schema(
    [("time", pa.timestamp("ns", tz="UTC")), ("host", pa.string())]
    + [(name, pa.float64()) for name in ("cpu", "load", "memory", "swap", "disk_used", *RATES)]
)


class TelemetrySource:
    """Source of one partition, named after the cadence, which determines its offsets.

    It cannot be read twice: a seek only sets the next offset.
    """

    def __init__(self, config: models.TelemetrySourceConfig) -> None:
        self._every_ns = max(to_nanoseconds(config.every), 1)
        self._partition = Partition(f"telemetry-{models.format_duration(config.every)}", 0)
        self._meter = Meter()
        self._assigned = False
        self._paused = True
        self._next = 0  # offset of the next row
        self._closed = False

    def poll(self, max_records: int, timeout: float) -> Poll:
        if self._closed:
            raise SourceError("this source is closed")
        if not self._assigned:
            self._assigned = True
            return Poll(assigned=[self._partition])
        wait = timeout if self._paused else (self._next * self._every_ns - time.time_ns()) / 1e9
        time.sleep(max(0.0, min(wait, timeout)))
        return Poll(records=[self._read()]) if not self._paused and self._tick() >= self._next else Poll()

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        return {p: OffsetBounds(0, max(self._next, self._tick() + 1)) for p in partitions}

    def start_offset(self, partition: Partition) -> int:
        return self._tick() + 1

    def identity(self, partition: Partition) -> str:
        return ""

    def seek(self, partition: Partition, offset: int) -> None:
        self._next = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused = self._paused or self._partition in partitions

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused = self._paused and self._partition not in partitions

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: there is no lag without a log."""

    def close(self) -> None:
        self._closed = True

    def _tick(self) -> int:
        return time.time_ns() // self._every_ns

    def _read(self) -> TableRecords:
        first, tick = self._next, self._tick()
        self._next = tick + 1
        row = {"time": tick * self._every_ns, "host": socket.gethostname(), **self._meter.read()}
        table = pa.table([pa.array([row[column.name]], column.type) for column in SCHEMA], SCHEMA)
        return TableRecords(
            self._partition, first, self._next, np.array([tick]), np.array([tick * self._every_ns]), table
        )


class Meter:
    """Readings of psutil, with counters as rates since the last reading (none at the first)."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call starts the interval
        self._counters = _counters()
        self._read_at = time.monotonic()

    def read(self) -> dict[str, float | None]:
        """Return column → reading, None where this machine has none."""
        counters, now = _counters(), time.monotonic()
        elapsed = max(now - self._read_at, 1e-6)
        rates = {
            name: (counters[name] - before) / elapsed
            for name, before in self._counters.items()
            if name in counters
        }
        self._counters, self._read_at = counters, now
        return {
            "cpu": psutil.cpu_percent(),
            "load": psutil.getloadavg()[0] / (psutil.cpu_count() or 1),
            "memory": psutil.virtual_memory().percent,
            "swap": psutil.swap_memory().percent,
            "disk_used": psutil.disk_usage(".").percent,
            **{name: rates.get(name) for name in RATES},
        }


def _counters() -> dict[str, float]:
    """Return totals since the start of the machine, without those that it lacks."""
    found: dict[str, float] = {}
    disks = psutil.disk_io_counters()
    if disks is not None:
        found |= {"disk_read": disks.read_bytes, "disk_written": disks.write_bytes}
    nets = [c for name, c in psutil.net_io_counters(pernic=True).items() if not name.startswith("lo")]
    if nets:
        found |= {
            "net_received": sum(c.bytes_recv for c in nets),
            "net_sent": sum(c.bytes_sent for c in nets),
        }
    return found


def from_config(
    stream_name: str, config: models.TelemetrySourceConfig, form: models.FormatConfig | None
) -> TelemetrySource:
    """Make the source of a stream, for ``make_source``."""
    return TelemetrySource(config)
