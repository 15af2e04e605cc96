"""Sequences of events of other systems, with the default configuration.

    python -m benchmarks.event_worlds                                     # made systems
    python -m benchmarks.event_worlds --data ../shared/data/events --halves 5

Each made system has a grammar with branches and loops. Its ordinary sessions are learned and tested. A
session with a fault differs in one place: two steps exchanged, a step left out, an early end, a foreign step,
or a step of another place. Only faults that the grammar does not allow count. With ``--data``, the halves of
the sessions of HDFS are drawn at random, and half of each half is learned too. Logs without sessions:
``python -m benchmarks.event_logs``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.events import flagged_sessions, read_sessions
from detectors.sequences.fit import fit_detector

Session = list[str]
TESTED, FAULTY = 2000, 300


def door(rng: random.Random) -> Session:
    """Return a passage of a door, with refused badges and doors held open."""
    out = ["badge"]
    while rng.random() < 0.1:
        out += ["refused", "badge"]
    out += ["granted", "unlock", "open"]
    while rng.random() < 0.1:
        out.append("passage")
    if rng.random() < 0.05:
        out += ["held_open", "chime"]
    return [*out, "close", "lock"]


def batch(rng: random.Random) -> Session:
    """Return a batch recipe with charges in either order, loops and rework."""
    out = ["start", *rng.choice((["charge_a", "charge_b"], ["charge_b", "charge_a"])), "heat"]
    for _ in range(rng.randrange(2, 7)):
        out += ["stir", "sample"]
    while rng.random() < 0.15:
        out += ["sample_bad", "heat", "stir", "sample"]
    return [*out, "sample_good", "cool", *(["filter"] if rng.random() < 0.5 else []), "discharge", "clean"]


def pipeline(rng: random.Random) -> Session:
    """Return a CI pipeline of three shards that run at the same time."""
    out = ["checkout", *(["cache_hit"] if rng.random() < 0.8 else ["cache_miss", "install"]), "lint"]
    waiting, running = ["unit", "api", "web"], list[str]()
    while waiting or running:
        if waiting and (not running or rng.random() < 0.6):
            running.append(waiting.pop(0))
            out.append(f"{running[-1]}_start")
        else:
            out.append(f"{running.pop(rng.randrange(len(running)))}_pass")
    out += ["build", "scan"]
    return [*out, *(["deploy", "smoke"] if rng.random() < 0.2 else []), "cleanup"]


def shell(rng: random.Random) -> Session:
    """Return the commands of an administrator: tasks in any order."""
    tasks = [
        ["cd", "ls"],
        ["git_pull", "make", "make_test"],
        ["vim", "make"],
        ["systemctl_stop", "cp_config", "systemctl_start", "systemctl_status"],
        ["ssh", "tail_log", "exit"],
        ["df"],
        ["su", "apt_update", "apt_upgrade", "exit_su"],
    ]
    out = ["login"]
    for _ in range(rng.randrange(1, 9)):
        out += rng.choices(tasks, (30, 10, 15, 4, 8, 5, 2))[0]
    return [*out, "logout"]


WORLDS: dict[str, Callable[[random.Random], Session]] = {
    "door": door,
    "batch": batch,
    "pipeline": pipeline,
    "shell": shell,
}


def faulty(session: Session, kind: str, codes: list[str], rng: random.Random) -> Session:
    """Return a session with one fault.

    Args:
        session: An ordinary session.
        kind: One of ``KINDS``.
        codes: Codes of the system.
        rng: Random numbers.
    """
    out, at = list(session), rng.randrange(1, len(session) - 1)
    if kind == "exchanged":
        out[at], out[at + 1] = out[at + 1], out[at]
    elif kind == "left out":
        del out[at]
    elif kind == "early end":
        del out[at:]
    elif kind == "foreign":
        out.insert(at, "never_seen")
    else:
        out.insert(at, rng.choice(codes))
    return out


KINDS = ("exchanged", "left out", "early end", "foreign", "other place")


def faulty_sessions(
    world: Callable[[random.Random], Session], kind: str, ordinary: set[tuple[str, ...]], rng: random.Random
) -> list[Session]:
    """Return sessions with a fault that are none of the ordinary ones.

    Args:
        world: Draws an ordinary session.
        kind: One of ``KINDS``.
        ordinary: Sessions that the grammar allows.
        rng: Random numbers.
    """
    codes = sorted({code for one in ordinary for code in one})
    found: list[Session] = []
    while len(found) < FAULTY:
        made = faulty(world(rng), kind, codes, rng)
        if tuple(made) not in ordinary:
            found.append(made)
    return found


def measure_worlds(names: list[str], sizes: list[int], seeds: int) -> None:
    """Print the shares of ordinary and of faulty sessions that are flagged."""
    print(
        f"{'system':10s} {'learned':>7s} {'seed':>4s} {'limit':>6s} {'flagged':>8s} "
        + " ".join(f"{k:>11s}" for k in KINDS)
    )
    for name in names:
        world = WORLDS[name]
        many = random.Random(1)
        ordinary = {tuple(world(many)) for _ in range(300_000)}
        for size in sizes:
            for seed in range(seeds):
                rng = random.Random(seed)
                detector, _ = fit_detector([world(rng) for _ in range(size)], seed=seed)
                wrong, _ = flagged_sessions(detector, [world(rng) for _ in range(TESTED)])
                found = [
                    flagged_sessions(detector, faulty_sessions(world, kind, ordinary, rng))[0].mean()
                    for kind in KINDS
                ]
                shares = " ".join(f"{share:11.3f}" for share in found)
                print(
                    f"{name:10s} {size:7d} {seed:4d} {detector.limit:6.2f} {wrong.mean():8.4f} {shares}",
                    flush=True,
                )


def measure_halves(data: Path, seeds: int) -> None:
    """Print the figures of HDFS for random halves and quarters."""
    every = read_sessions(data / "hdfs_normal_train.txt.gz") + read_sessions(data / "hdfs_normal_test.txt.gz")
    abnormal = read_sessions(data / "hdfs_abnormal_test.txt.gz")
    print("\nhalf  learned   limit   recall  normal flagged      F1")
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(every)).tolist()
        half = len(every) // 2
        for size in (half, half // 2):
            detector, _ = fit_detector([every[row] for row in order[:size]], seed=seed)
            wrong, _ = flagged_sessions(detector, [every[row] for row in order[half:]])
            found, _ = flagged_sessions(detector, abnormal)
            precision, recall = found.sum() / (found.sum() + wrong.sum()), found.mean()
            f1 = 2 * precision * recall / (precision + recall)
            print(
                f"{seed:4d} {size:8d} {detector.limit:7.2f} {recall:8.4f} {wrong.mean():15.4f} {f1:7.4f}",
                flush=True,
            )


def main() -> None:
    """Run the measurements that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--sizes", nargs="*", type=int, default=[200, 800])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--halves", type=int, default=5)
    given = parser.parse_args()
    if given.data is None:
        measure_worlds(given.worlds, given.sizes, given.seeds)
        return
    measure_halves(given.data, given.halves)


if __name__ == "__main__":
    main()
