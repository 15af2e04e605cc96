"""Every tier and preset passes the one suite; detectors that break it are caught by it."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import REGISTRY, DetectorSpec, build, contract
from detectors.base import Points, State, Verdicts

SPECS = [
    *(DetectorSpec(tier=tier) for tier in ("light", "standard", "strong")),
    *(DetectorSpec(tier=tier, channels=("a", "b", "c")) for tier in ("light", "standard", "strong")),
    *(
        DetectorSpec(tier=tier, channels=channels, decision="usual_range")
        for tier in ("light", "standard", "strong")
        for channels in (("value",), ("a", "b", "c"))
    ),
    DetectorSpec(
        tier="standard", preset="network", decision="usual_range", timezone="Europe/Berlin", holidays="DE"
    ),
    DetectorSpec(tier="standard", preset="stock", channels=("close", "volume"), decision="usual_range"),
    DetectorSpec(tier="standard", preset="network"),
    DetectorSpec(tier="standard", preset="stock", channels=("close", "volume")),
    *(
        DetectorSpec(tier=name, channels=channels)
        for name in REGISTRY
        for channels in (("value",), ("a", "b", "c"))
    ),
]


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.tier}-{spec.preset}-{len(spec.channels)}-{spec.decision}"
)
def test_tier(spec, check):
    check(build(spec))


class Broken:
    """The light tier with one fault; what the suite is for is to find it."""

    def __init__(self) -> None:
        self.inner = build(DetectorSpec(tier="light"))
        self.spec, self.version, self.state_version, self.weights = self.inner.spec, "broken", "broken", ""

    def initial(self, n: int) -> State:
        return self.inner.initial(n)

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        return self.inner.step(state, points)


class Leaking(Broken):
    """Scales by the whole batch: a look-ahead."""

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        state, verdicts = self.inner.step(state, points)
        verdicts.surprise = verdicts.surprise / np.float32(1 + np.nanmax(np.abs(points.values)))
        return state, verdicts


class Forgetful(Broken):
    """Keeps something outside its state."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        state, verdicts = self.inner.step(state, points)
        self.seen += len(points)
        verdicts.surprise = verdicts.surprise + np.float32(self.seen)
        return state, verdicts


class Gossiping(Broken):
    """Lets every series see its neighbours."""

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        points.slot = points.slot // 2
        return self.inner.step(state, points)


class Unbounded(Broken):
    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        state, verdicts = self.inner.step(state, points)
        verdicts.score = verdicts.surprise
        return state, verdicts


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Leaking, contract.causality),
        (Forgetful, contract.determinism),
        (Leaking, contract.batching),
        (Forgetful, contract.round_trip),
        (Gossiping, contract.independence),
        (Unbounded, contract.robustness),
    ],
    ids=lambda value: value.__name__,
)
def test_the_suite_bites(fault, check):
    with pytest.raises(contract.CheckFailed):
        check(fault())
