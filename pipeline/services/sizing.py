"""Estimate of the resources that an installation needs, from measured figures.

The figures are those of docs/lab-notes/benchmarks.md: one kind of machine (2 shared cores of 2026), JSON
records of 63 bytes with one channel. Other machines differ; ratios hold better than absolute values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: CPU of a record from Kafka to the commit without the detector: `light` 1.98 µs less its step.
RECORD_CPU_SECONDS = 1.53e-6
#: CPU of one channel of a point in the detector. `strong`: `standard` times their ratio in benchmarks.tiers.
STEP_CPU_SECONDS = {"light": 0.45e-6, "standard": 3.84e-6, "strong": 7.8e-6}
#: CPU in the detector with `decision: usual_range`, over that with `surprise`.
USUAL_RANGE_CPU_RATIO = {"light": 1.9, "standard": 1.31, "strong": 1.34}
#: Share of a core that a member uses at the planned rate. The rest catches up after a restart.
PLANNED_LOAD = 0.5
#: Memory of a process before the first point.
PROCESS_BYTES = 280_000_000
#: Buffers of a batch, of the recorded history and of the reader.
BATCH_BYTES = 110_000_000
#: Client of Kafka, alerts, HTTP server and scheduler of trainings: a daemon compared with a backfill.
DAEMON_BYTES = 130_000_000
#: Supervisor of several workers in a member.
SUPERVISOR_BYTES = 110_000_000
#: Names, event time and open anomalies of a series, beside the state of its detector.
SERIES_BYTES = 510
#: Row of recorded history with one channel, and of each further channel.
HISTORY_ROW_BYTES, HISTORY_CHANNEL_BYTES = 21, 14
#: Share of the request by which a limit of memory exceeds it.
LIMIT_FACTOR = 1.5
#: PostgreSQL keeps the previous version of a row until vacuum.
ROW_VERSIONS = 2
MIN_PARTITIONS_PER_PROCESS = 2
MIB = 1 << 20
DAY_SECONDS = 86_400
#: As storage.keep_history, and room for files that are being merged.
KEPT_DAYS = 30
HISTORY_MARGIN = 1.2


@dataclass(frozen=True, slots=True)
class Load:
    """Series and records of a stream.

    ``records_per_second`` counts all series together. ``member_losses`` is the number of members that may
    be lost while the others hold all series. A member is a machine or a pod with so many ``workers``.
    """

    series: int
    records_per_second: float
    detector: str = "standard"
    channels: int = 1
    decision: str = "usual_range"
    snapshot_seconds: float = 30.0
    member_losses: int = 1
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Size:
    """Resources of an installation. Bytes are bytes, rates are of one second.

    Those of a member are for all of its workers.
    """

    members: int
    workers_in_a_member: int
    partitions: int
    cpu_cores: float
    member_cpu_cores: float
    member_memory_bytes: int
    member_memory_limit_bytes: int
    series_in_a_member: int
    state_bytes_a_series: int
    database_bytes: int
    snapshot_write_bytes_per_second: int
    history_bytes_a_day: int


def size_of(load: Load) -> Size:
    """Return the resources for a load.

    The detector is built once for the bytes of its state, so that they are never out of date.
    """
    step = STEP_CPU_SECONDS[load.detector] * load.channels
    if load.decision == "usual_range":
        step *= USUAL_RANGE_CPU_RATIO[load.detector]
    cpu = load.records_per_second * (RECORD_CPU_SECONDS + step)
    needed = max(1, math.ceil(cpu / PLANNED_LOAD / load.workers))
    members = needed + load.member_losses
    in_member = math.ceil(load.series / needed)
    state = state_bytes(load.detector, load.channels, load.decision)
    processes = load.workers * (PROCESS_BYTES + BATCH_BYTES + DAEMON_BYTES)
    supervisor = SUPERVISOR_BYTES if load.workers > 1 else 0
    kept = state + readings_bytes(load.channels, load.decision)
    memory = processes + supervisor + in_member * (kept + SERIES_BYTES)
    stored = load.series * kept
    row = HISTORY_ROW_BYTES + HISTORY_CHANNEL_BYTES * (load.channels - 1)
    return Size(
        members=members,
        workers_in_a_member=load.workers,
        partitions=_partitions(members * load.workers),
        cpu_cores=round(cpu, 2),
        member_cpu_cores=round(cpu / members, 2),
        member_memory_bytes=_whole(memory),
        member_memory_limit_bytes=_whole(memory * LIMIT_FACTOR),
        series_in_a_member=in_member,
        state_bytes_a_series=state,
        database_bytes=stored * ROW_VERSIONS,
        snapshot_write_bytes_per_second=int(stored / load.snapshot_seconds),
        history_bytes_a_day=int(load.records_per_second * DAY_SECONDS * row),
    )


def state_bytes(detector: str, channels: int, decision: str) -> int:
    """Return the bytes that the detector keeps for one series."""
    from detectors import DetectorSpec, build

    names = tuple(f"c{number}" for number in range(channels))
    built = build(DetectorSpec(tier=detector, channels=names, decision=decision))
    return sum(array.nbytes for array in built.initial(1).values())


def readings_bytes(channels: int, decision: str) -> int:
    """Return the bytes of the last readings that are kept for one series."""
    if decision != "usual_range":
        return 0
    from pipeline.scoring.recent_readings import RecentReadings

    readings = RecentReadings(channels, related=channels > 1).initial(1)
    return sum(array.nbytes for array in readings.values())


def _partitions(processes: int) -> int:
    """Return a power of two, two to four partitions a process."""
    return int(2 ** math.ceil(math.log2(processes * MIN_PARTITIONS_PER_PROCESS)))


def _whole(size: float) -> int:
    """Return ``size``, rounded up to 64 MiB."""
    step = 64 * MIB
    return math.ceil(size / step) * step


def helm_values(size: Size) -> dict[str, object]:
    """Return the values of the chart for a size."""
    memory, limit = (
        f"{value // MIB}Mi" for value in (size.member_memory_bytes, size.member_memory_limit_bytes)
    )
    kept = size.history_bytes_a_day * KEPT_DAYS * HISTORY_MARGIN
    cores = str(size.workers_in_a_member)
    return {
        "replicas": size.members,
        "workers": size.workers_in_a_member,
        "resources": {"requests": {"cpu": cores, "memory": memory}, "limits": {"memory": limit}},
        "data": {"size": f"{max(1, math.ceil(kept / 2**30))}Gi"},
    }
