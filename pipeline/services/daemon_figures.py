"""Memory and commit times of a running daemon, read from its page of metrics."""

from __future__ import annotations

import http.client
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.config.serve import Http
from pipeline.core.errors import ForewatchError

TIMEOUT_SECONDS = 1.0
LAG_METRIC = "forewatch_lag_records"
MAX_PAGE_BYTES = 32 << 20
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class DaemonUnreachable(ForewatchError):
    """The page of metrics of the daemon cannot be read."""


@dataclass(slots=True)
class CommitTimes:
    """Times of the SQL transactions of a stream since the daemon started, in seconds.

    ``buckets`` maps an upper end to the number of commits that took at most so long.
    """

    count: float = 0.0
    total_seconds: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)

    @property
    def mean_seconds(self) -> float | None:
        """Mean time; None before the first commit."""
        return self.total_seconds / self.count if self.count else None

    def quantile_seconds(self, share: float) -> float | None:
        """Return the time of a share of the commits, as exact as the buckets."""
        wanted, before, low = share * self.count, 0.0, 0.0
        for end, count in sorted(self.buckets.items()):
            if count >= wanted and count > before:
                return low if math.isinf(end) else low + (end - low) * (wanted - before) / (count - before)
            before, low = count, end
        return None


@dataclass(slots=True)
class DaemonFigures:
    """Figures of a daemon and of its worker processes."""

    memory_bytes: float = 0.0
    started_s: float | None = None
    commits: dict[str, CommitTimes] = field(default_factory=dict)
    #: stream → records of its log that are not committed yet
    lag_records: dict[str, float] = field(default_factory=dict)


def read_daemon_figures(http_config: Http | None) -> DaemonFigures:
    """Return the figures of the daemon that a config describes.

    Raises:
        DaemonUnreachable: No daemon answers at its address.
    """
    if http_config is None or not http_config.port:
        raise DaemonUnreachable(
            "the config gives the metrics of the daemon no fixed address; set `http.port` to see them here"
        )
    host = _ANY_ADDRESS.get(http_config.host, http_config.host)
    connection = http.client.HTTPConnection(host, http_config.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read(MAX_PAGE_BYTES)
        if answer.status != 200:
            raise DaemonUnreachable(f"{host}:{http_config.port}/metrics answered {answer.status}")
    except (OSError, http.client.HTTPException) as error:
        raise DaemonUnreachable(
            f"no daemon answers at {host}:{http_config.port} ({error}); `forewatch run CONFIG` starts one, "
            "and `http` in the config is its address"
        ) from None
    finally:
        connection.close()
    return figures_of(page.decode("utf-8", "replace").splitlines())


def figures_of(lines: Iterable[str]) -> DaemonFigures:
    """Return the figures of a page in the text format of Prometheus."""
    from prometheus_client.parser import text_string_to_metric_families

    found = DaemonFigures()
    prefixes = ("process_", "forewatch_commit_seconds", LAG_METRIC)
    wanted = [one for one in lines if one.startswith(prefixes)]
    for family in text_string_to_metric_families("\n".join(wanted) + "\n"):
        for sample in family.samples:
            name, value = sample.name, float(sample.value)
            if name == "process_resident_memory_bytes":
                found.memory_bytes += value
            elif name == "process_start_time_seconds":
                found.started_s = min(value, found.started_s or value)
            elif name == LAG_METRIC:
                stream = sample.labels["stream"]
                found.lag_records[stream] = found.lag_records.get(stream, 0.0) + value
            elif name.startswith("forewatch_commit_seconds"):
                _add(
                    found.commits.setdefault(sample.labels["stream"], CommitTimes()),
                    sample.labels,
                    name,
                    value,
                )
    return found


def _add(times: CommitTimes, labels: dict[str, str], name: str, value: float) -> None:
    if name.endswith("_count"):
        times.count += value
    elif name.endswith("_sum"):
        times.total_seconds += value
    elif name.endswith("_bucket"):
        end = float(labels["le"])
        times.buckets[end] = times.buckets.get(end, 0.0) + value
