"""Client of the query API of Prometheus, for a look at its metrics.

https://prometheus.io/docs/prometheus/latest/querying/api/; Mimir, Thanos and VictoriaMetrics answer it, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from pipeline.core.errors import InputError
from pipeline.core.secret_text import hide_in_urls

TIMEOUT_SECONDS = 30.0
#: Points of each series in a sample.
SAMPLE_POINTS = 120
#: Metrics of one query.
METRICS_AT_ONCE = 20
MAX_CHARACTERS = 300

Labels = Mapping[str, str]


class PrometheusApi:
    """Connection to a server. A context manager; all methods raise InputError."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Connect to nothing yet.

        Args:
            url: Address of the server, with the prefix of its path; user and password may be in it.
            headers: Further headers of each request, such as Authorization.
        """
        parts = urlsplit(url)
        path = parts.path.rstrip("/").removesuffix("/api/v1").removesuffix("/graph")
        self._where = hide_in_urls(url)
        self._base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        self._client = httpx.Client(headers=dict(headers), timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> PrometheusApi:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._client.close()

    def series_of_metrics(self, selector: str) -> dict[str, int]:
        """Return the number of series of each metric now, those of most series first."""
        found = self._get("query", {"query": f"count by (__name__) ({selector})"})["result"]
        counts = {one["metric"].get("__name__", ""): int(float(one["value"][1])) for one in found}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def types(self) -> dict[str, str]:
        """Return metric → gauge, counter, ..., of those that the server has metadata of."""
        try:
            found = self._get("metadata", {})
        except InputError:  # not every server has them
            return {}
        return {name: one[0].get("type", "") for name, one in found.items() if one}

    def samples(
        self, selector: str, names: Sequence[str], end: float, hours: float
    ) -> list[tuple[Labels, list[float]]]:
        """Return labels and values of the series of metrics in the last hours.

        Args:
            selector: Conditions of the series, ``{job="node"}``.
            names: Names of the metrics.
            end: End of the sample, s.
            hours: Length of the sample.
        """
        found: list[tuple[Labels, list[float]]] = []
        step = max(1.0, hours * 3600 / SAMPLE_POINTS)
        for at in range(0, len(names), METRICS_AT_ONCE):
            chosen = with_names(selector, names[at : at + METRICS_AT_ONCE])
            keys = {"query": chosen, "start": end - hours * 3600, "end": end, "step": step}
            found += [
                (one["metric"], [float(value) for _, value in one.get("values", ())])
                for one in self._get("query_range", keys)["result"]
            ]
        return found

    def times(self, labels: Labels, minutes: int) -> list[float]:
        """Return the times of the newest samples of a series, s."""
        matchers = ",".join(f"{_label(name)}={json.dumps(text)}" for name, text in labels.items())
        found = self._get("query", {"query": f"{{{matchers}}}[{minutes}m]"})["result"]
        return [float(time) for one in found for time, _ in one.get("values", ())]

    def _get(self, what: str, keys: Mapping[str, Any]) -> Any:
        url = f"{self._base}/api/v1/{what}"
        try:
            answer = self._client.get(url, params=keys)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InputError(
                f"{self._where} does not answer: {error or type(error).__name__}; check the address"
            ) from None
        if answer.status_code in (401, 403):
            raise InputError(
                f"{self._where} refuses the credentials ({answer.status_code}); give them as "
                "--header 'Authorization: Bearer TOKEN', or as https://user:password@host"
            )
        if answer.status_code >= 500:
            raise InputError(
                f"{self._where} answers {answer.status_code} {answer.text[:60].strip()!r}; try again later"
            )
        try:
            content = answer.json()
            if content["status"] == "success":
                return content["data"]
            why = str(content.get("error", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{self._where} is no Prometheus: {what} answers {answer.status_code} "
                f"{answer.text[:60]!r}; give the address without /api/v1"
            ) from None
        raise InputError(f"{self._where} refuses the query: {why[:MAX_CHARACTERS]}")


def with_names(selector: str, names: Sequence[str]) -> str:
    """Return a selector of some metrics."""
    regex = json.dumps("|".join(map(re.escape, names)))
    inside = selector.strip().removeprefix("{").removesuffix("}").strip().rstrip(",")
    return f"{{__name__=~{regex}{',' + inside if inside else ''}}}"


def _label(name: str) -> str:
    """Return the name of a label as a query has it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name)
