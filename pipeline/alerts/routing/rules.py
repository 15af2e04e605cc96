"""Rules of a stream: the behaviour of the alert of an anomaly, and whether the anomaly is dropped."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.alerts.routing.matchers import compile_matcher, match_fields, relative_deviation
from pipeline.config.alerts import AlertPolicyConfig, AlertsConfig, FlappingConfig, GroupingConfig
from pipeline.core.durations import to_nanoseconds
from pipeline.core.types import Anomaly, Severity
from storage.alerting.states import SuppressionReason

DEFAULT = "default"
STORM = "storm"
_RANKS = {severity: level for level, severity in enumerate(Severity)}


def rank(severity: str) -> int:
    """Return 0 for info to 3 for critical."""
    return _RANKS[Severity(severity)]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of the alerts of one rule; spans are in ns."""

    rule: str
    to: tuple[str, ...]
    by: tuple[str, ...] | None
    wait: int
    interval: int
    repeat: int | None
    recover_after: int
    cooldown: int
    flapping_changes: int | None
    flapping_within: int
    min_deviation: float
    min_severity: int
    lasts: int


class StreamRules:
    """The rules of one stream.

    ``endpoints`` are all configured ones; a rule that names none sends to all of them.
    """

    def __init__(self, stream: str, config: AlertsConfig, endpoints: tuple[str, ...]) -> None:
        self.stream = stream
        self.config = config
        self._rules = [
            (compile_matcher(r.match), r.drop, _behaviour(r.name or "", r, config, endpoints))
            for r in config.rules
        ]
        self._default = _behaviour(DEFAULT, config, config, endpoints)
        self._by_name = {b.rule: b for _, _, b in self._rules} | {DEFAULT: self._default}
        self.faults = _behaviour("faults", AlertPolicyConfig(to=config.faults.to), config, endpoints)

    def evaluate(self, anomaly: Anomaly, now_ns: int) -> tuple[Behaviour, str | None]:
        """Return the behaviour of the first rule that matches, and why the anomaly is dropped or None."""
        if self.config.max_age is not None and now_ns - anomaly.end_ns > to_nanoseconds(self.config.max_age):
            return self._default, SuppressionReason.TOO_OLD
        known = match_fields(anomaly)
        for matches, drop, behaviour in self._rules:
            if matches(known):
                return behaviour, f"rule:{behaviour.rule}" if drop else self._too_small(anomaly, behaviour)
        return self._default, self._too_small(anomaly, self._default)

    def behaviour(self, rule: str) -> Behaviour:
        """Return the behaviour of a named rule, or of the stream if the rule is no longer configured."""
        name = rule.partition("/")[0]
        return self.faults if name == "faults" else self._by_name.get(name, self._default)

    def _too_small(self, anomaly: Anomaly, behaviour: Behaviour) -> str | None:
        if rank(anomaly.severity) < rank(self.config.severity.notice):
            return SuppressionReason.SEVERITY
        if rank(anomaly.severity) < behaviour.min_severity:
            return SuppressionReason.MIN_SEVERITY
        if behaviour.min_deviation and relative_deviation(anomaly) < behaviour.min_deviation:
            return SuppressionReason.MIN_DEVIATION
        return None


def _behaviour(
    name: str, policy: AlertPolicyConfig, stream: AlertsConfig, endpoints: tuple[str, ...]
) -> Behaviour:
    """Return the behaviour of ``policy``, whose missing keys are taken from the stream."""

    def pick(key: str) -> object:
        own = getattr(policy, key)
        return own if own is not None else getattr(stream, key)

    group, flapping = pick("group") or GroupingConfig(), pick("flapping")
    assert isinstance(group, GroupingConfig)
    assert flapping is None or isinstance(flapping, FlappingConfig)
    to, recover, cooldown, lasts = pick("to"), pick("recover_after"), pick("cooldown"), pick("lasts")
    severity, deviation_ = pick("min_severity"), pick("min_deviation")
    return Behaviour(
        rule=name,
        to=endpoints if to is None else tuple(to),  # type: ignore[arg-type]
        by=None if group.by is None else tuple(group.by),
        wait=to_nanoseconds(group.wait),
        interval=to_nanoseconds(group.interval),
        repeat=None if group.repeat is None else to_nanoseconds(group.repeat),
        recover_after=0 if recover is None else to_nanoseconds(recover),  # type: ignore[arg-type]
        cooldown=0 if cooldown is None else to_nanoseconds(cooldown),  # type: ignore[arg-type]
        flapping_changes=None if flapping is None else flapping.changes,
        flapping_within=0 if flapping is None else to_nanoseconds(flapping.within),
        min_deviation=0.0 if deviation_ is None else float(deviation_),  # type: ignore[arg-type]
        min_severity=0 if severity is None else rank(severity),  # type: ignore[arg-type]
        lasts=0 if lasts is None else to_nanoseconds(lasts),  # type: ignore[arg-type]
    )
