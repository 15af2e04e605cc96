"""Guess of streams that receive metrics of a Prometheus server by remote write."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from pipeline.core.durations import duration_text
from pipeline.core.errors import InputError
from pipeline.services.guess import Guess
from pipeline.services.prometheus_api import Labels, PrometheusApi

DEFAULT_HOURS = 6.0
#: Most metrics and series of a first config; with more of them the choice is asked for.
MAX_METRICS, MAX_SERIES = 60, 3_000
MAX_LABELS = 10
#: Metrics of the exporters themselves, which are left out beside others.
_OF_EXPORTERS = ("go_*", "process_*", "promhttp_*", "scrape_*", "python_*", "net_conntrack_*")
_PART_OF_HISTOGRAM = re.compile(r"_(bucket|created)$")
_INFORMATION = re.compile(r"_(info|timestamp|time|timestamp_seconds|time_seconds)$")
_TRAFFIC = re.compile(r"octets|packets|network|requests|receive|transmit|throughput|latency|flows")
_COUNTER = re.compile(r"_(total|count|sum)$")
_MATCHER = re.compile(r'\s*([A-Za-z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_WORDS = re.compile(r"[\w .:/@-]+(\|[\w .:/@-]+)*")
#: Names of labels that are fields of a sample, too.
_FIELDS = ("value", "timestamp", "series")
_CADENCE_MINUTES = 30


@dataclass(slots=True)
class _Found:
    """Content of a sample of the chosen metrics."""

    gauges: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    series: int = 0
    example: Labels = field(default_factory=dict)


def guess_metrics(
    api: PrometheusApi, selector: str, answers: Mapping[str, str], now: float | None = None
) -> tuple[Guess, dict[str, dict[str, Any]]]:
    """Guess streams; return the guess, and the streams by the ending of their name.

    Args:
        api: Connection to the server.
        selector: Conditions of the series, such as ``{job="node"}``; "" for all.
        answers: Keys that are known: metrics, hours, series.
        now: End of the sample, s.

    Raises:
        InputError: There is nothing to choose from, or the selector cannot be a condition.
    """
    conditions = conditions_of(selector)
    guess, hours = Guess(), _hours(answers.get("hours"))
    there = api.series_of_metrics(selector or '{__name__=~".+"}')
    chosen = _chosen(there, answers.get("metrics"), guess)
    if not chosen:
        raise InputError("no metric matches; give another --query, for example '{job=\"node\"}'")
    if guess.questions:
        return guess, {}
    found = _look(api, selector, chosen, (time.time() if now is None else now, hours))
    if not found.gauges and not found.counters:
        raise InputError(
            f"no metric changed in the last {hours:g} hours; give more with --set hours=48, or other metrics"
        )
    if found.constant:
        guess.note("constant", _some(found.constant), f"no change in {hours:g} hours: left out")
    _note_cadence(guess, api, found)
    series = answers["series"].split(",") if "series" in answers else _series(guess, found)
    streams = {}
    parts = [("", found.gauges, False), ("-rates" if found.gauges else "", found.counters, True)]
    for ending, names, rising in parts:
        if names:
            guess.note(f"metrics{ending}", _some(names), "they only rise" if rising else "they rise and fall")
            streams[ending] = _stream(names, series, conditions, rising=rising)
    if found.counters:
        guess.note("counters", "value", "their rate per second is scored")
    guess.note("preset", next(iter(streams.values())).get("preset", "sensor"), "names of the metrics")
    return guess, streams


def conditions_of(selector: str) -> dict[str, Any]:
    """Return the conditions of a selector as ``where`` has them. Raises InputError."""
    inside, found = selector.strip().removeprefix("{").removesuffix("}").strip(), {}
    at = 0
    while at < len(inside):
        match = _MATCHER.match(inside, at)
        if match is None:
            raise InputError(
                f'--query {selector}: write the labels of the metrics, such as {{job="node"}}, and their '
                "names as --set metrics=node_cpu*,node_load*"
            )
        name, sign, text = match.groups()
        if "~" in sign and not _WORDS.fullmatch(text):
            raise InputError(f'--query {selector}: a condition has words only: {name}{sign}"a|b|c"')
        wanted = text.split("|") if "~" in sign else [text]
        one: Any = wanted[0] if len(wanted) == 1 else wanted
        found[name] = {"not": one} if sign.startswith("!") else one
        at = match.end()
    return found


def remote_write_yaml(streams: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Return what prometheus.yml needs to send to the streams ``name`` + ending."""
    lines = ["remote_write:"]
    for ending, stream in streams.items():
        where = stream["format"]["remote_write"]["where"]
        lines += [
            f"  - url: http://127.0.0.1:9466/push/{name}{ending}",
            "    write_relabel_configs:",
            "      - source_labels: [__name__]",
            f"        regex: {'|'.join(where['__name__'])}",
            "        action: keep",
            "    queue_config: {retry_on_http_429: true}",
        ]
    return "\n".join(lines)


def _hours(text: str | None) -> float:
    try:
        hours = DEFAULT_HOURS if text is None else float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24 * 31:
        raise InputError(f"--set hours={text}: write the length of the sample in hours, such as 24")
    return hours


def _chosen(there: Mapping[str, int], wanted: str | None, guess: Guess) -> list[str]:
    """Return the metrics to look at, and ask if there are too many."""
    if wanted is not None:
        globs = [one.strip() for one in wanted.split(",") if one.strip()]
        return [name for name in there if any(fnmatchcase(name, glob) for glob in globs)][:MAX_METRICS]
    left: dict[str, list[str]] = defaultdict(list)
    for name in there:
        left[_reason_against(name)].append(name)
    names = left.pop("") if left.get("") else left.pop("of the exporters themselves", [])
    for reason, others in left.items():
        guess.note(reason, _some(others), f"{len(others)} metrics left out")
    total = sum(there[name] for name in names)
    if len(names) > MAX_METRICS or total > MAX_SERIES:
        families = Counter(name.split("_")[0] + "_" + "".join(name.split("_")[1:2]) for name in names)
        options = [f"{one}*" for one, _ in families.most_common(30)]
        question = f"{len(names)} metrics with {total} series: which ones (at most {MAX_METRICS} metrics)?"
        guess.ask("metrics", question, options)
    return names


def _reason_against(name: str) -> str:
    if _PART_OF_HISTOGRAM.search(name):
        return "buckets of histograms"
    if _INFORMATION.search(name):
        return "information and times"
    return "of the exporters themselves" if any(fnmatchcase(name, one) for one in _OF_EXPORTERS) else ""


def _look(api: PrometheusApi, selector: str, names: Sequence[str], span: tuple[float, float]) -> _Found:
    """Look at a sample: what changes, what only rises, and which labels there are."""
    found, types = _Found(), api.types()
    changing: dict[str, bool] = {}
    rising: dict[str, bool] = {}
    used: Counter[str] = Counter()
    of_metric: dict[str, list[Labels]] = defaultdict(list)
    for labels, values in api.samples(selector, names, *span):
        name = labels.get("__name__", "")
        there = [value for value in values if math.isfinite(value)]
        changing[name] = changing.get(name, False) or len(set(there)) > 1
        falls = sum(b < a for a, b in pairwise(there))
        rising[name] = rising.get(name, True) and falls <= len(there) // 20
        of_metric[name].append(labels)
    for name in names:
        kind = types.get(name) or types.get(_COUNTER.sub("", name), "")
        if not changing.get(name):
            found.constant.append(name)
            continue
        total = kind == "counter" or (bool(_COUNTER.search(name)) and rising[name])
        (found.counters if total else found.gauges).append(name)
        for labels in of_metric[name]:
            used.update(one for one in labels if one != "__name__")
        found.series += len(of_metric[name])
        found.example = found.example or of_metric[name][0]
    found.labels = [name for name, _ in used.most_common()]
    return found


def _series(guess: Guess, found: _Found) -> list[str] | str:
    if len(found.labels) > MAX_LABELS:
        guess.note("series", "series", f"{found.series} series: the name with all {len(found.labels)} labels")
        return "series"
    fields = [f"labels.{one}" if one in _FIELDS else one for one in found.labels]
    guess.note("series", ", ".join(["__name__", *fields]), f"{found.series} series: all labels that occur")
    return ["__name__", *fields]


def _note_cadence(guess: Guess, api: PrometheusApi, found: _Found) -> None:
    times = sorted(set(api.times(found.example, _CADENCE_MINUTES)))
    steps = [b - a for a, b in pairwise(times)]
    if len(steps) >= 3:
        text = duration_text(timedelta(seconds=round(statistics.median(steps), 1)))
        guess.note("every", text, "usual interval of scrapes; it is learned, not set")


def _stream(
    names: list[str], series: list[str] | str, conditions: Mapping[str, Any], *, rising: bool
) -> dict[str, Any]:
    form = {"series": series, "where": {"__name__": names, **conditions}}
    stream: dict[str, Any] = {"source": {"push": {"host": "127.0.0.1"}}, "format": {"remote_write": form}}
    if any(_TRAFFIC.search(name) for name in names):
        stream["preset"] = "network"
    return stream | ({"counters": ["value"]} if rising else {})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"
