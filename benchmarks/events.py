"""Sequences of events on recorded data.

    python -m benchmarks.events --data ../shared/data/events

The model is fitted to the normal sessions of the training file with default options. No label is used before
the figures are computed.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd

from detectors.sequences.detector import Events, NextEventDetector
from detectors.sequences.fit import fit_detector
from detectors.sequences.vocabulary import BOUNDARY
from pipeline.decode.log_templates import LogTemplates

SYSTEMS = ("Apache", "BGL", "HDFS", "Linux", "OpenStack", "Zookeeper")
#: Grouping accuracy of Drain with settings per system (Zhu et al., "Tools and benchmarks for automated log
#: parsing", ICSE 2019).
PUBLISHED = (1.0, 0.963, 0.998, 0.690, 0.733, 0.967)


def read_sessions(path: Path) -> list[list[str]]:
    """Return the codes of each line."""
    with gzip.open(path, "rt") as file:
        return [line.split() for line in file]


def flagged_sessions(detector: NextEventDetector, sessions: list[list[str]]) -> tuple[np.ndarray, float]:
    """Return whether each session has an alarm, and the events judged per second."""
    tokens = [np.r_[detector.vocabulary.encode(one), BOUNDARY].astype(np.int32) for one in sessions]
    slot = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(one) for one in tokens])
    state, events = detector.initial(len(tokens)), Events(slot, np.concatenate(tokens))
    start = time.perf_counter()
    _, verdicts = detector.step(state, events)
    rate = len(slot) / (time.perf_counter() - start)
    out = np.zeros(len(tokens), np.bool_)
    np.logical_or.at(out, slot, verdicts.flag)
    return out, rate


def measure_sessions(data: Path, seeds: int) -> None:
    """Print recall, flagged normal sessions and F1 for each seed."""
    train, normal, abnormal = (
        read_sessions(data / f"hdfs_{name}.txt.gz")
        for name in ("normal_train", "normal_test", "abnormal_test")
    )
    print("seed   limit   recall  normal flagged      F1   events/s   bytes a key")
    for seed in range(seeds):
        detector, _ = fit_detector(train, seed=seed)
        wrong, rate = flagged_sessions(detector, normal)
        found, _ = flagged_sessions(detector, abnormal)
        precision = found.sum() / (found.sum() + wrong.sum())
        recall = found.mean()
        size = sum(array[0].nbytes for array in detector.initial(1).values())
        print(
            f"{seed:4d} {detector.limit:7.2f} {recall:8.4f} {wrong.mean():15.4f}"
            f" {2 * precision * recall / (precision + recall):7.4f} {rate:10,.0f} {size:13,d}"
        )


def grouping_accuracy(found: list[str], reference: pd.Series) -> float:
    """Return the share of lines whose group of codes is a group of the reference."""
    frame = pd.DataFrame({"found": found, "reference": reference.to_numpy()})
    sizes = frame["reference"].value_counts()
    right = 0
    for _, group in frame.groupby("found"):
        names = group["reference"].unique()
        if len(names) == 1 and sizes[names[0]] == len(group):
            right += len(group)
    return right / len(frame)


def measure_templates(data: Path) -> None:
    """Print the grouping accuracy of each system beside the published one."""
    print("\nsystem       templates  reference  accuracy  published  lines/s")
    for system, published in zip(SYSTEMS, PUBLISHED, strict=True):
        frame = pd.read_csv(data / f"{system}_2k.structured.csv.gz")
        templates, lines = LogTemplates(), [str(line) for line in frame["Content"]]
        start = time.perf_counter()
        codes = [templates.code(line) for line in lines]
        rate = len(lines) / (time.perf_counter() - start)
        accuracy = grouping_accuracy(codes, frame["EventId"])
        print(
            f"{system:12s} {len(templates):9d} {frame['EventId'].nunique():10d} {accuracy:9.3f}"
            f" {published:10.3f} {rate:8,.0f}"
        )


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/events"))
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    if not given.data.is_dir():
        raise SystemExit(
            f"there is no folder {given.data}: fetch the logs with `forewatch data fetch loghub --to data`, "
            "and name their folder with --data data/events"
        )
    if (given.data / "hdfs_normal_train.txt.gz").is_file():
        measure_sessions(given.data, given.seeds)
    else:
        print("the sessions of HDFS are not there (forewatch data list); only the logs are measured")
    measure_templates(given.data)


if __name__ == "__main__":
    main()
