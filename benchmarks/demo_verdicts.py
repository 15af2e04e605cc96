"""Verdicts on the data of the demo, compared with the faults that were injected.

The simulated sources, the config and the faults are those of ``forewatch demo``; records go to the scoring
path directly, without Kafka and without a clock. An anomaly is a message of the demo if its severity is at
least warning. A message is right if it is of the faulty series during the fault, on a channel and in a
direction that the fault moves, or about the event that the fault makes. The model of events learns from the
historical records, as in the demo.

    python -m benchmarks.demo_verdicts [--seeds 10] [--first-seed 0] [--rounds 2]

Prints a line for each seed, its wrong messages and missed faults; then precision, recall, recall by kind of
fault, and how often the first message was right: of the demo, and of each stream.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from detectors import build
from detectors.sequences.fit import Piece
from detectors.sequences.stream_detector import EventStreamDetector
from detectors.sequences.vocabulary import END_TEXT
from pipeline.config.schema import Stream
from pipeline.core.anomaly_text import anomaly_statement
from pipeline.core.types import Anomaly, Partition, Severity
from pipeline.demo.feed import FAULT_INTERVAL_SECONDS, FIRST_FAULT_SECONDS, SPEED_FACTOR
from pipeline.demo.setting import demo_streams
from pipeline.demo.simulate import WORLDS, World
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records
from pipeline.training.event_training import AlarmRule, train_events

#: Kind of fault → channel and direction of a right message; "mixed" has no direction.
SIGNS: dict[str, set[tuple[str, str]]] = {
    "temperature spike": {("temperature", "up")},
    "temperature drift": {("temperature", "up")},
    "pressure drop": {("pressure", "down")},
    "stuck sensor": {("temperature", "mixed"), ("pressure", "mixed")},
    "flood": {(channel, "up") for channel in ("bytes", "packets", "flows")},
    "port scan": {("flows", "up"), ("peers", "up")},
    "silence": {(channel, "down") for channel in ("bytes", "packets", "flows", "peers")},
    "price jump": {("close", "up")},
    "volatility burst": {("close", "up"), ("close", "down"), ("close", "mixed")},
    "stuck quote": {("close", "mixed")},
    "volume burst": {("volume", "up")},
}
#: Kind of fault → cause and code of a right message about events.
EVENTS: dict[str, tuple[str, str]] = {
    "cooling after draining": ("unexpected_event", "drain"),
    "batch without rinsing": ("unexpected_event", "dry"),
    "batch that stops": ("missing_event", END_TEXT),
}
SHOWN = (Severity.WARNING, Severity.MAJOR, Severity.CRITICAL)


@dataclass
class Fault:
    """An injected fault; times are ns of event time."""

    stream: str
    kind: str
    target: str
    start_ns: int
    end_ns: int


@dataclass
class Tally:
    """Messages and faults of all runs."""

    messages: int = 0
    right: int = 0
    first_right: int = 0
    first_of_stream: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    found: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    severities: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def faults(self) -> tuple[int, int]:
        """Faults that were found, and all."""
        return sum(map(sum, self.found.values())), sum(map(len, self.found.values()))

    def count(self, anomaly: Anomaly, right: bool) -> None:
        """Count a message."""
        self.messages += 1
        self.right += right
        self.severities[anomaly.severity] += 1

    def show(self, seeds: int) -> None:
        """Print the figures of so many runs."""
        total = [one for by_kind in self.found.values() for one in by_kind]
        print(
            f"precision {self.right / max(self.messages, 1):.2f} ({self.right} of {self.messages} messages)"
        )
        print(f"recall {np.mean(total):.2f} ({sum(total)} of {len(total)} faults)")
        print(f"first message right: {self.first_right} of {seeds}")
        for stream, right_ones in self.first_of_stream.items():
            print(f"  of {stream}: {sum(right_ones)} of {len(right_ones)}")
        print("severities:", json.dumps(self.severities))
        for kind, by_kind in self.found.items():
            print(f"  {kind}: {sum(by_kind)} of {len(by_kind)}")


def run_world(
    world: World, order: int, rounds: int
) -> tuple[list[Fault], dict[str, Anomaly], dict[str, int]]:
    """Return faults, anomalies by id, and when each anomaly was first a message.

    Args:
        world: The source.
        order: Its place in the turn of the faults.
        rounds: Rounds of one fault of every kind.
    """
    name = world.stream
    stream = Stream.model_validate(demo_streams(None)[name])
    detector = event_detector(world, stream) if stream.of_events else build(detector_spec(stream))
    scorer = StreamScorer(provenance(name, stream, detector), stream, detector)
    ticks_a_turn = round(FAULT_INTERVAL_SECONDS * SPEED_FACTOR / world.tick_s)
    first = round(FIRST_FAULT_SECONDS * SPEED_FACTOR / world.tick_s) + order * ticks_a_turn
    turns = {first + i * ticks_a_turn * len(WORLDS) for i in range(rounds * len(world.faults))}
    last, at, offset = max(turns) + len(WORLDS) * ticks_a_turn, 1_750_000_000 - 1_750_000_000 % 86_400, 0
    faults: list[Fault] = []
    found: dict[str, Anomaly] = {}
    shown: dict[str, int] = {}
    values: list[bytes] = []
    start_ns = (at + world.history_ticks * world.tick_s) * 10**9
    for tick in range(-world.history_ticks, last):
        if tick in turns:
            world.inject()
            kind, target = world.fault or ("", "")
            until = at + world.faults[kind] * world.tick_s
            faults.append(Fault(name, kind, target.replace("/", "|"), at * 10**9, until * 10**9))
        values += [value for _, value in world.tick(at)]
        at += world.tick_s
        if tick < 0 and tick % 500 and tick != -1:
            continue
        n = len(values)
        records = _records(world.topic, offset, values)
        offset, values = offset + n, []
        for anomaly in scorer.process([records]).anomalies:
            if anomaly.start_ns < start_ns:
                continue  # in the demo, the verdicts of the warm start are discarded
            found[str(anomaly.id)] = anomaly
            if anomaly.severity in SHOWN:
                shown.setdefault(str(anomaly.id), at * 10**9)
    return faults, found, shown


def event_detector(world: World, stream: Stream) -> EventStreamDetector:
    """Return a detector that has learned from the history of a world of events."""
    steps: dict[str, list[str]] = defaultdict(list)
    sessions: list[Piece] = []
    (end,) = stream.event_settings.end
    past = deepcopy(world)
    for tick in range(past.history_ticks):
        for key, value in past.tick(tick * past.tick_s):
            one = steps[key.decode()]
            one.append(json.loads(value)["step"])
            if one[-1] == end:
                sessions.append(Piece(one.copy()))
                one.clear()
    rate = stream.target_alarm_rate
    model, _ = train_events(sessions, None, AlarmRule(ended=True, rate=rate), seed=0)
    return EventStreamDetector(detector_spec(stream), model)


def _records(topic: str, offset: int, values: list[bytes]) -> Records:
    """Return values as records of the only partition of a topic."""
    n = len(values)
    offsets = np.arange(offset, offset + n)
    return Records(Partition(topic, 0), offset, offset + n, offsets, np.full(n, -1), values, [None] * n)


def matches(fault: Fault, anomaly: Anomaly) -> bool:
    """Return True if the anomaly is of the faulty series during the fault."""
    after = 12 * 300 * 10**9
    names = set(fault.target.split("|"))
    same = names <= set(anomaly.labels.values())
    return same and fault.start_ns - 600 * 10**9 <= anomaly.start_ns <= fault.end_ns + after


def tells(fault: Fault, anomaly: Anomaly) -> bool:
    """Return True if channel and direction, or the event, are those of the fault."""
    if anomaly.event is not None:
        return (anomaly.cause, anomaly.event.code) == EVENTS[fault.kind]
    channel = anomaly.channels[int(np.argmax(anomaly.contribution))]
    return (channel, anomaly.direction) in SIGNS[fault.kind] or (channel, "mixed") in SIGNS[fault.kind]


def run_seed(seed: int, rounds: int) -> tuple[list[Fault], list[tuple[int, Anomaly]]]:
    """Return the faults of a run by start, and its messages by time."""
    faults: list[Fault] = []
    messages: list[tuple[int, Anomaly]] = []
    for order, world in enumerate(WORLDS):
        one, found, shown = run_world(world(seed + order), order, rounds)
        faults += one
        messages += [(shown[key], anomaly) for key, anomaly in found.items() if key in shown]
    messages.sort(key=lambda pair: pair[0])
    return sorted(faults, key=lambda fault: fault.start_ns), messages


def judge(faults: list[Fault], messages: list[tuple[int, Anomaly]], tally: Tally) -> list[str]:
    """Count messages and faults of a run; return a line for each error.

    Args:
        faults: Faults by start.
        messages: Messages by time.
        tally: Counts of all runs.
    """
    met: set[str] = set()
    lines: list[str] = []
    for _, anomaly in messages:
        fault = next((f for f in faults if f.stream == anomaly.stream and matches(f, anomaly)), None)
        right = fault is not None and tells(fault, anomaly)
        tally.count(anomaly, right)
        tally.first_right += not met and right and fault is faults[0]
        if anomaly.stream not in met:
            met.add(anomaly.stream)
            first = next(one for one in faults if one.stream == anomaly.stream)
            tally.first_of_stream[anomaly.stream].append(right and fault is first)
        if not right:
            when = np.datetime64(anomaly.start_ns, "ns").astype("datetime64[s]")
            statement = anomaly_statement(anomaly, ended=True)
            kind = fault.kind if fault else "no fault"
            lines.append(f"wrong ({kind}): {anomaly.severity} {anomaly.series} {when} {statement}")
    for fault in faults:
        of_stream = [a for _, a in messages if a.stream == fault.stream]
        told = any(matches(fault, a) and tells(fault, a) for a in of_stream)
        tally.found[fault.kind].append(told)
        if not told:
            lines.append(f"missed: {fault.kind} of {fault.target}")
    return lines


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    tally = Tally()
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        before = (tally.messages, tally.right, *tally.faults, tally.first_right)
        began = time.monotonic()
        lines = judge(*run_seed(seed, given.rounds), tally)
        now = (tally.messages, tally.right, *tally.faults, tally.first_right)
        messages, right, met, faults, first = np.subtract(now, before).tolist()
        print(
            f"seed {seed}: {right} of {messages} messages right, {met} of {faults} faults found, "
            f"first message {'right' if first else 'wrong'} ({time.monotonic() - began:.0f} s)",
            *lines,
            sep="\n  ",
            flush=True,
        )
    tally.show(given.seeds)


if __name__ == "__main__":
    main()
