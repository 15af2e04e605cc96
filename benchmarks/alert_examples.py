"""Alerts of plain faults as people get them: text, mail and picture.

    python -m benchmarks.alert_examples FOLDER            # all of them
    python -m benchmarks.alert_examples --page            # docs/explanation/examples-of-alerts.md

A stream of each preset has one series for each fault. The records go through decoder, event time, detector
and tracker as in the daemon, one row of each series at a time. The message is that of the first row at which
the anomaly is at least a warning, and that of its end.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.batch_faults import EDITS, FaultyBatches
from benchmarks.demo_verdicts import event_detector
from benchmarks.fault_shapes import EVERY_S, FAULT_ROW, PER_DAY, START_S, Source, edge, market, plant
from detectors import build
from pipeline.alerts.messages import text
from pipeline.alerts.messages.chart import ChartRenderer
from pipeline.alerts.messages.html import html_of
from pipeline.alerts.messages.payload import Kind, Payload
from pipeline.alerts.outbox import encode_anomaly
from pipeline.alerts.routing.composer import NotificationContext, compose
from pipeline.alerts.routing.rules import StreamRules
from pipeline.config.schema import Stream
from pipeline.core.types import Anomaly, AnomalyState, Partition, Severity
from pipeline.demo.setting import demo_streams
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.scoring.usual_range import MIN_ROWS_UNTIL_CLOSED
from pipeline.sources.base import Records
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import AlertKind, MemberState

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "examples-of-alerts.md"
PICTURES = PAGE.parent / "pictures"
#: Rows between two faults of batches.
BATCH_FAULT_ROWS = 150
#: Faults of the page, by stream.
SHOWN_FAULTS = {
    "plant": (
        "spike", "drift", "slow drift", "stuck value", "no shift", "over its limit", "level shift", "burst",
        "broken relation", "dead channel",
    ),
    "edge": (
        "flood", "silence", "fewer peers", "port scan", "level shift", "stuck value", "drift", "transfer",
        "lost link", "flows without bytes",
    ),
    "market": (
        "bad tick", "volatility burst", "trend", "stuck quote", "price jump", "flash crash", "volume burst",
        "negative price", "no volume", "split",
    ),
    "batches": tuple(EDITS),
}  # fmt: skip
PAGE_HEAD = """# Examples of alerts

Messages about plain faults in simulated series, as they are sent at the first reading of at least severity
*warning*, without their commands. The first picture of each is that of this message, the second one that of
the message about the end.
`python -m benchmarks.alert_examples --page` makes this page; with a folder it writes the alerts of all
faults. What each line means stands in [How alerts work](alerts.md#what-a-message-says).
"""
NEVER_NS = (1 << 63) - 2
SHOWN = (Severity.WARNING, Severity.MAJOR, Severity.CRITICAL)


@dataclass
class Example:
    """The anomaly of one fault: when it was first a message, and at its end."""

    fault: str
    opened: Anomaly
    ended: Anomaly


class Recorder:
    """Scored points of a stream, as recorded history gives them to a picture."""

    def __init__(self, channels: tuple[str, ...]) -> None:
        """Start without points."""
        self._channels = channels
        self._rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)

    def add(self, scored: Any, names: list[str | None]) -> None:
        """Add the points of a batch."""
        verdicts = scored.verdicts
        for i, slot in enumerate(scored.points.slot.tolist()):
            if scored.offset[i] >= 0:
                relation = verdicts.relation if verdicts.relation.shape[1] else verdicts.expected * np.nan
                numbers = (scored.points.values, verdicts.expected, verdicts.lower, verdicts.upper, relation)
                self._rows[names[slot] or ""].append(
                    (int(scored.points.time[i]), bool(verdicts.flag[i]), *(x[i].tolist() for x in numbers))
                )

    def read(
        self,
        stream: str,
        series: str,
        since_ns: int,
        until_ns: int,
        columns: list[str],
        known_until_ns: int = NEVER_NS,
    ) -> pa.Table:
        """Return a table as ``HistoryReader.read`` does.

        Args:
            stream: Name of the stream, of which there is one.
            series: Name of the series.
            since_ns: First time.
            until_ns: Time before which rows are returned.
            columns: Columns beside the time.
            known_until_ns: Last time of which a point was known.
        """
        until_ns = min(until_ns, known_until_ns + 1)
        rows = [one for one in self._rows[series] if since_ns <= one[0] < until_ns]
        known: dict[str, list[Any]] = {"time": [one[0] for one in rows], "flag": [one[1] for one in rows]}
        for c, channel in enumerate(self._channels):
            for k, kind in enumerate(("value", "expected", "lower", "upper", "relation")):
                known[f"{kind}:{channel}"] = [one[2 + k][c] for one in rows]
        return pa.table({name: known[name] for name in ("time", *columns)})


def run(source: Source) -> tuple[list[Example], Recorder]:
    """Return the anomalies of a source that are messages, and its scored points."""
    stream = source.stream
    detector = build(detector_spec(stream))
    scorer = StreamScorer(provenance(source.name, stream, detector), stream, detector)
    return follow(source.name, scorer, source.records(), lambda anomaly: source.faults[anomaly.series])


def follow(
    name: str, scorer: StreamScorer, ticks: Iterator[list[bytes]], fault_of: Callable[[Anomaly], str]
) -> tuple[list[Example], Recorder]:
    """Return each anomaly at its first message and at its end, and the points.

    Args:
        name: Name of the stream.
        scorer: Its scorer.
        ticks: Records of each time.
        fault_of: Returns the name of the fault of an anomaly.
    """
    opened: dict[Any, Anomaly] = {}
    ended: dict[Any, Anomaly] = {}
    recorder = Recorder(scorer.provenance.channels)
    offset, waiting = 0, []
    for row, values in enumerate(ticks):
        waiting += values
        if (row % PER_DAY and row < FAULT_ROW - 1) or not waiting:
            continue
        n = len(waiting)
        offsets = np.arange(offset, offset + n)
        batch = Records(Partition(name, 0), offset, offset + n, offsets, np.full(n, -1), waiting, [None] * n)
        offset, waiting = offset + n, []
        result = scorer.process([batch])
        if result.scored is not None:
            recorder.add(result.scored, scorer.names())
        for anomaly in result.anomalies if row >= FAULT_ROW else ():
            if anomaly.severity in SHOWN:
                opened.setdefault(anomaly.id, deepcopy(anomaly))
            ended[anomaly.id] = deepcopy(anomaly)
    found = [Example(fault_of(one), one, ended[key]) for key, one in opened.items()]
    return sorted(found, key=lambda one: one.opened.start_ns), recorder


def batches() -> tuple[list[Example], Recorder, Stream]:
    """Return the alerts of wrong orders of the steps of batches."""
    world = FaultyBatches(1)
    stream = Stream.model_validate(demo_streams(None)[world.stream] | {"timezone": "Europe/Berlin"})
    detector = event_detector(world, stream)
    scorer = StreamScorer(provenance(world.stream, stream, detector), stream, detector)
    turns = {FAULT_ROW + BATCH_FAULT_ROWS * i for i in range(len(world.faults))}
    kinds: list[tuple[int, str, str]] = []

    def ticks() -> Iterator[list[bytes]]:
        for row in range(FAULT_ROW + len(turns) * BATCH_FAULT_ROWS):
            if row in turns:
                world.inject()
                kinds.append((START_S + row * EVERY_S, *(world.fault or ("", ""))))
            yield [value for _, value in world.tick(START_S + row * EVERY_S)]

    def fault_of(anomaly: Anomaly) -> str:
        before = [
            kind for at, kind, mixer in kinds if at * 10**9 <= anomaly.start_ns and mixer == anomaly.series
        ]
        return before[-1] if before else "none"

    found, recorder = follow(world.stream, scorer, ticks(), fault_of)
    return found, recorder, stream


def messages(name: str, stream: Stream, one: Example) -> tuple[Payload, Payload]:
    """Return the first message about an example and that of its end.

    Args:
        name: Name of the stream.
        stream: Its configuration.
        one: The example.
    """
    return message(name, stream, one.opened, "opened"), message(name, stream, one.ended, "resolved")


def message(name: str, stream: Stream, anomaly: Anomaly, kind: Kind) -> Payload:
    """Return the message about an anomaly as the router writes it.

    An anomaly that began and ended within one batch has a first message too.

    Args:
        name: Name of the stream.
        stream: Its configuration.
        anomaly: The anomaly.
        kind: Kind of the message.
    """
    closed = anomaly.state is AnomalyState.CLOSED
    member = AlertMember(
        anomaly.id, anomaly.id, name, anomaly.series, MemberState.CLOSED if closed else MemberState.OPEN,
        anomaly.severity.value, anomaly.surprise, anomaly.start_ns, anomaly.end_ns, encode_anomaly(anomaly),
    )  # fmt: skip
    record = AlertRecord(
        anomaly.id, name, AlertKind.DATA, "default", anomaly.series, f"{name}/{anomaly.series}",
        anomaly.labels,
        anomaly.start_ns, anomaly.end_ns, anomaly.end_ns, anomaly.severity.value,
    )  # fmt: skip
    record.count, record.resolved_ns = 1, anomaly.end_ns if kind == "resolved" else None
    context = NotificationContext([member], 1, int(not closed), timezone=stream.local_timezone)
    rules = StreamRules(name, stream.alerts, ())
    return compose(record, kind, 1, context, rules.behaviour("default"), stream.alerts, anomaly.end_ns)


def pictures(one: Example, recorder: Recorder, first: Payload, last: Payload, stem: str) -> dict[str, bytes]:
    """Return the pictures of the first message and of the end by the names of their files.

    There are none of events.

    Args:
        one: The example.
        recorder: Points of its stream.
        first: Its first message, when no later point was known.
        last: The message about its end.
        stem: Begin of the names.
    """
    known = ChartRenderer(partial(recorder.read, known_until_ns=one.opened.end_ns))
    closed_ns = one.ended.end_ns + MIN_ROWS_UNTIL_CLOSED * one.ended.every_ns
    ended = ChartRenderer(partial(recorder.read, known_until_ns=closed_ns))
    drawn = {f"{stem}.png": known(first), f"{stem}-end.png": ended(last)}
    return {file: picture for file, picture in drawn.items() if picture is not None}


def write_all(folder: Path) -> None:
    """Write every alert as text, mail and picture to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stream, found, recorder in sources():
        texts = []
        for n, one in enumerate(found):
            first, last = messages(name, stream, one)
            stem = folder / f"{name}-{n:02d}-{one.fault.replace(' ', '-')}"
            texts += [f"### {one.fault}", *(f"{m.data.title}\n\n{m.data.text}\n" for m in (first, last))]
            for file, picture in pictures(one, recorder, first, last, stem.name).items():
                (folder / file).write_bytes(picture)
            stem.with_suffix(".html").write_text(html_of(first.data, stem.with_suffix(".png").name))
        (folder / f"{name}.txt").write_text("\n".join(texts))
        print(f"{name}: {len(found)} alerts")


def write_page() -> None:
    """Write the page of the documentation and its pictures."""
    parts = [PAGE_HEAD]
    for name, stream, found, recorder in sources():
        for fault in SHOWN_FAULTS[name]:
            one = next((one for one in found if one.fault == fault), None)
            if one is None:
                raise SystemExit(f"{name}: {fault} raises no alert")
            first, last = messages(name, stream, one)
            drawn = pictures(one, recorder, first, last, f"alert-{name}-{fault.replace(' ', '-')}")
            links = [f"![{name}: {fault}](pictures/{file})\n" for file in drawn]
            for file, picture in drawn.items():
                (PICTURES / file).write_bytes(picture)
            parts += [f"## {name}: {fault}\n", *links[:1]]
            parts.append(f"```text\n{first.data.title}\n\n{_without_commands(first)}\n```\n")
            parts += [f"At its end: *{last.data.title}*\n", *links[1:]]
    PAGE.write_text("\n".join(parts))


def _without_commands(payload: Payload) -> str:
    return "\n".join(f"{line.label}: {line.text}" for line in text.lines(payload.data))


def sources() -> Iterator[tuple[str, Stream, list[Example], Recorder]]:
    """Yield the streams with their alerts and points."""
    for make in (plant, edge, market):
        source = make()
        found, recorder = run(source)
        yield source.name, source.stream, found, recorder
    found, recorder, stream = batches()
    yield "batches", stream, found, recorder


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.page:
        write_page()
    if given.folder is not None:
        write_all(given.folder)


if __name__ == "__main__":
    main()
