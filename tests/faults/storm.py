"""Members that die and freeze at every phase, one after the other, while records come in."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Iterator, Sequence

from tests.faults.member import Member
from tests.faults.stage import SESSION_S, Stage
from tests.faults.traps import FREEZES, PHASES, Trap

#: A trap whose phase does not come in this time, since the member owns something, is replaced by a signal
#: wherever it happens to be.
PATIENCE_S = 4.0
JOINING_S = 20.0
FROZEN_S = SESSION_S + 1.5
LIMIT_S = 300.0


def traps(
    rng: random.Random, kills: int, freezes: int, phases: Sequence[str] = PHASES
) -> Iterator[Trap | None]:
    """Yield every phase before any comes again, freezes in between; then no trap at all."""
    planned: list[Trap] = []
    while len(planned) < kills:
        planned += [
            Trap(phase, rng.randrange(1, 4 if phase in FREEZES else 2))
            for phase in rng.sample(phases, len(phases))
        ]
    planned = planned[:kills]
    for i in range(freezes):
        freeze = Trap(FREEZES[i % len(FREEZES)], rng.randrange(1, 4), signal.SIGSTOP)
        planned.insert(round((i + 0.5) * len(planned) / freezes), freeze)
    yield from planned
    yield from itertools.repeat(None)


def storm(
    stage: Stage,
    kills: int,
    freezes: int,
    *,
    fences: int = 0,
    members: int = 2,
    seed: int = 1,
) -> None:
    """Keep ``members`` processes alive, each with the next trap, until so many have died and frozen; then let
    others finish.

    ``fences`` is the least number of commits refused because their partition had another owner. A freeze of
    the storm causes one only if the partition changed its owner meanwhile; what is missing is caused after it.
    """
    rng = random.Random(seed)
    plan = traps(rng, kills, freezes, stage.phases)
    figures = stage.figures
    slots = [stage.member(next(plan)) for _ in range(members)]
    frozen: dict[int, float] = {}
    planned = kills + freezes + 2 + 4 * fences  # records are left for the fences and the end
    deadline = time.monotonic() + LIMIT_S
    while figures.kills < kills or figures.freezes < freezes:
        assert time.monotonic() < deadline, (
            f"{figures.kills} kills and {figures.freezes} freezes only. {stage.say()}"
        )
        stage.allow(min(1.0, (figures.kills + figures.freezes + 1) / planned))
        stage.troubles.turn()
        for i, member in enumerate(slots):
            if member.exitcode is not None:
                assert member.exitcode == -signal.SIGKILL, (
                    f"exit code {member.exitcode} by itself. {member.output()}"
                )
                figures.kills += 1
                figures.phases[f"kill: {_where(member)}"] += 1
                stage.troubles.on_death(member)
                slots[i] = stage.member(next(plan))
            elif member.frozen and member.thawed is None:
                _freeze(stage, member, frozen)
            elif _bored(member):
                member.signal(signal.SIGKILL if member.trap is None or member.thawed else member.trap.signum)
        time.sleep(0.03)
    for member in slots:
        member.trap = None
        if member.exitcode is None:
            member.thaw()
            member.kill()
    while stage.fenced_commits() < fences:
        _fence(stage)
    last = stage.member(), stage.member()
    stage.troubles.finish()
    stage.until_drained()
    stage.troubles.close_account()
    assert not any(event["torch"] for member in stage.members for event in member.events("start")), (
        "the light tier imports no torch"
    )
    stage.leave()
    assert all(member.exitcode == 0 for member in last)


def _fence(stage: Stage) -> None:
    """Freeze a lone member before a commit, thaw it once another owns every partition."""
    stage.allow(stage.allowed + (1.0 - stage.allowed) / 2)
    late = stage.member(Trap("scored", signum=signal.SIGSTOP))
    late.until(lambda: late.frozen, "it freezes before a commit")
    other = stage.member()
    owned = len(stage.logs)
    other.until(lambda: len(other.events("takeover")) >= owned, "another member owns every partition")
    late.thaw()
    late.until(lambda: bool(late.events("fenced")), "its commit is refused")
    stage.figures.freezes += 1
    for member in (late, other):
        member.kill()


def _where(member: Member) -> str:
    return "anywhere" if member.trap is None or member.bored or member.thawed else member.trap.phase


def _freeze(stage: Stage, member: Member, frozen: dict[int, float]) -> None:
    """Past its session, then back to life: it must find out by itself that it is not the owner any more."""
    since = frozen.setdefault(id(member), time.monotonic())
    if time.monotonic() - since > FROZEN_S:
        stage.figures.freezes += 1
        stage.figures.phases[f"freeze: {_where(member)}"] += 1
        member.thaw()


def _bored(member: Member) -> bool:
    owned = member.thawed or next((event["at"] for event in member.events("takeover")), None)
    limit = owned + PATIENCE_S if owned is not None else member.started + JOINING_S
    member.bored = member.bored or time.monotonic() > limit
    return time.monotonic() > limit
