"""Text of an anomaly: its quantity, its value and its usual range.

Every message, page and command prints this text, so that all state the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from pipeline.core.deviation_size import size_text, value_is_outside
from pipeline.core.durations import duration_text
from pipeline.core.shown_numbers import shown_texts
from pipeline.core.types import Anomaly, AnomalyState, DeviationContext

#: Readings over which a level and a noise are averaged, those of a trend and of a relation; hours of the
#: window of an absence. They describe the quantities of ``detectors.stages.usual_range``.
MEAN_READINGS, TREND_READINGS, RELATION_READINGS, EXTREME_HOURS = 8, 40, 4, 3
#: Share of the points seen from which a rarity is that of a record, and from which it only says that
#: something as unusual was there before: it is half of the points seen at most, some points before the text.
RECORD_SHARE, BOUND_SHARE = 0.501, 0.45
#: Decades from which a rarity is stated: a record of fewer readings says little.
MIN_STATED_RARITY = 2.0
#: Mean changes between a value and the mean of the last ones from which the value moves in one direction.
MIN_CHANGES_OF_MOVEMENT = 3.0
#: Ends of a range that are this many times larger than the value and the end that it left are not stated.
MAX_STATED_END = 30.0
#: Causes that state no rarity: a limit and an impossible value are wrong however often they come.
CAUSES_WITHOUT_RARITY = ("static_limit", "impossible_value")
#: Basis of a range (``detectors.base.BASES``) → the rows from which it was learned.
_BASIS_TEXTS = {
    "time_of_day": " at this time of day",
    "working_days": " at this time on working days",
    "weekends": " at this time on weekends",
    "similar_days": " at this time on such days of the week",
}
_UNKNOWN = DeviationContext("none", None, None)


def usual_range_text(anomaly: Anomaly, unit: str | None = None, *, ended: bool = False) -> str | None:
    """Return the sentence of an anomaly, or None under the decision "surprise".

    Args:
        anomaly: the anomaly.
        unit: unit of the leading channel.
        ended: write in the past tense.
    """
    if not anomaly.ratio:
        return None
    at = anomaly.leading_channel
    numbers = (anomaly.observed[at], anomaly.lower[at], anomaly.upper[at], anomaly.expected[at])
    lasted = anomaly.readings > 1
    told = _Told(anomaly.channels[at], *numbers, anomaly.context or _UNKNOWN, unit, ended, lasted)
    match anomaly.cause:
        case "flatline":
            return _standstill(told, anomaly.every_ns)
        case "unusual_step" | "unusual_noise" | "relation" | "trend":
            return _change(told, anomaly.cause, relative=anomaly.relative)
        case "forecast":
            # Anomalies of version 0.2 and earlier state the error of the forecast.
            if anomaly.relative or told.low == -told.high:
                return _change(told, "forecast", relative=anomaly.relative)
            return _forecast(told)
        case "static_limit":
            return _static_limit(told)
        case "absence":
            return _absence(told)
        case "impossible_value":
            impossible = f"{told.is_(told.amount)}, which is not possible for this kind of data"
            return f"{impossible}{_range(told, 'expected ')}"
        case "unusual_level":
            return _level(told, value_is_outside(anomaly))
    return f"{told.is_(told.amount)}{_range(told)}"


def stated_ends(observed: float, low: float, high: float) -> tuple[float, float]:
    """Return the ends of a range, NaN for one that says nothing.

    An end that is far beyond all other numbers, as in the first days of a series, says nothing.
    """
    left = low if observed < low else high
    near = MAX_STATED_END * max(abs(observed), abs(left))
    low_end, high_end = (end if math.isfinite(end) else math.nan for end in (low, high))
    low_end = math.nan if observed > high and abs(low) > near else low_end
    return low_end, math.nan if observed < low and abs(high) > near else high_end


def deviation_text(anomaly: Anomaly) -> str:
    """Return size, readings and rarity of a deviation from a usual range."""
    rows = "1 reading" if anomaly.readings == 1 else f"{anomaly.readings:,} readings"
    so_far = " so far" if anomaly.state is AnomalyState.OPEN else ""
    if anomaly.cause in CAUSES_WITHOUT_RARITY:
        return f"{rows}{so_far}"
    size = size_text(anomaly)
    if anomaly.cause != "flatline":  # its statement has the readings
        size = f"{size}; {rows}{so_far}"
    seen = anomaly.first_flag_seq if anomaly.first_flag_seq > 0 else anomaly.last_flag_seq
    rarity = rarity_text(anomaly.surprise, seen, anomaly.every_ns, len(anomaly.channels))
    return f"{size}; {rarity}" if rarity else size


def relation_text(anomaly: Anomaly, units: Mapping[str, str]) -> str:
    """Return partner and implied value of a broken relation, else "".

    Args:
        anomaly: the anomaly.
        units: channel → unit.
    """
    context = anomaly.context
    if context is None or context.partner is None or context.implied is None or context.value is None:
        return ""
    name = anomaly.channels[anomaly.leading_channel]
    implied, value = shown_texts(context.implied, context.value)
    (beside,) = shown_texts(math.nan if context.partner_value is None else context.partner_value)
    partner, own = (f" {units[one]}" if units.get(one) else "" for one in (context.partner, name))
    others = " and the other channels" if len(anomaly.channels) > 2 else ""
    return (
        f"beside {context.partner} of {beside}{partner}{others}, {name} is usually near {implied}{own}, "
        f"not {value}{own}"
    )


def rarity_text(surprise: float, points_seen: int, every_ns: int = 0, channels: int = 1) -> str:
    """Return that hardly a reading was as unusual before, "" where none is known.

    Nothing is claimed that was not seen. A detector that states usual ranges claims a rarity of more than one
    in half of the points seen only for a deviation that was never reached before: the points seen bound it.
    A lower rarity is no rate to print: the readings of the deviation itself count in it.

    Args:
        surprise: −log10 of the probability of a row at least as unusual.
        points_seen: Points of the series so far.
        every_ns: Cadence of the series, 0 for unknown.
        channels: Channels of the series, whose number makes each of them as many times less rare.
    """
    if not (surprise >= MIN_STATED_RARITY and points_seen > 0):
        return ""
    share = 10.0 ** min(surprise, 15.0) * channels / points_seen
    if share <= BOUND_SHARE:
        return ""
    begin = "nothing as unusual in" if share > RECORD_SHARE else "among the most unusual of"
    span = duration_text(timedelta(microseconds=points_seen * every_ns / 1000)) if every_ns > 0 else ""
    return f"{begin} the {points_seen:,} readings seen{f' ({span})' if span else ''}"


@dataclass(frozen=True, slots=True)
class _Told:
    """Numbers of the leading channel, and how they are written."""

    name: str
    observed: float
    low: float
    high: float
    expected: float
    context: DeviationContext
    unit: str | None
    ended: bool
    lasted: bool = False

    @property
    def was(self) -> str:
        """The verb before the value of the peak."""
        if not self.ended:
            return "is"
        return f"was as {'high' if self.observed > self.high else 'low'} as" if self.lasted else "was"

    def verb(self, present: str, past: str) -> str:
        return past if self.ended else present

    def is_(self, amount: str) -> str:
        """Return that the channel is, or was, an amount."""
        return f"{self.name} {self.was} {self.with_unit(amount)}"

    def with_unit(self, text: str) -> str:
        return f"{text} {self.unit}" if self.unit else text

    @property
    def stated_ends(self) -> tuple[float, float]:
        """Ends of the range, NaN for one that says nothing."""
        return stated_ends(self.observed, self.low, self.high)

    @property
    def amount(self) -> str:
        """The quantity, with digits enough to tell it from the ends of its range."""
        return shown_texts(self.observed, *self.stated_ends)[0]

    @property
    def value(self) -> str | None:
        """The channel itself with its unit, None where it is not known."""
        return None if self.context.value is None else self.with_unit(shown_texts(self.context.value)[0])


def _level(told: _Told, value_is_outside: bool) -> str:
    """Return the sentence about a mean, with the value if that is outside."""
    mean, over = told.with_unit(told.amount), f"smoothed over the last {MEAN_READINGS} readings"
    if value_is_outside:
        now = f"{told.name} {told.verb('is', 'was')} {told.value}"
        return f"{now}; {over} it {told.was} {mean}{_range(told)}"
    return f"{told.name}, {over}, {told.was} {mean}{_range(told)}"


def _static_limit(told: _Told) -> str:
    side, end = ("above", told.high) if told.observed > told.high else ("below", told.low)
    amount, limit = shown_texts(told.observed, end)
    return f"{told.is_(amount)}, {side} its limit of {told.with_unit(limit)}"


def _forecast(told: _Told) -> str:
    forecast = told.with_unit(shown_texts(told.expected, *told.stated_ends)[0])
    return f"{told.is_(told.amount)}, where {forecast} was forecast{_range(told)}"


def _absence(told: _Told) -> str:
    """Return the sentence about a peak or a trough that did not come."""
    missing_peak = told.observed < told.low
    amount, end = shown_texts(told.observed, told.low if missing_peak else told.high)
    place, extreme, least = "above its usual trough", "lowest", "at most"
    if missing_peak:
        place, extreme, least = "below its usual peak", "highest", "at least"
    window = f"the {extreme} value of the last {EXTREME_HOURS} hours"
    stays, is_ = told.verb("stays", "stayed"), told.verb("is", "was")
    usual = f"usual{_basis(told)} {least} {told.with_unit(end)}"
    return f"{told.name} {stays} {place}: {window} {is_} {told.with_unit(amount)}, {usual}"


def _standstill(told: _Told, every_ns: int) -> str:
    run = round(told.observed)
    lasted = duration_text(timedelta(microseconds=run * every_ns / 1000)) if every_ns > 0 else ""
    length = f"{run:,} readings{f' ({lasted})' if lasted else ''}"
    repeated = told.value or "the same value"
    usual = math.floor(told.high) if math.isfinite(told.high) else None
    longest = (
        "" if usual is None else f", at most {usual:,} usual" if usual else ", usually it changes each time"
    )
    return f"{told.name} {told.verb('has repeated', 'repeated')} {repeated} for {length}{longest}"


def _change(told: _Told, cause: str, *, relative: bool) -> str:
    """Return the sentence about a step, a noise, a relation, or the error of a forecast.

    Only the end of the range that was left is stated: a fall says nothing about usual rises.

    Args:
        told: the numbers.
        cause: the cause.
        relative: the numbers are shares of the value before or of what was implied.
    """
    observed, end = told.observed, told.high if told.observed > told.high else told.low
    same_side = observed == 0 or end == 0 or (end > 0) == (observed > 0)
    times = relative and same_side and observed > 1
    size, limit = shown_texts(*(1 + x if times else abs(100 * x if relative else x) for x in (observed, end)))
    unit = " times" if times else " %" if relative else f" {told.unit}" if told.unit else ""
    least = "at most" if abs(observed) > abs(end) else "at least"
    usual = f"usual{_basis(told)} {least} {limit}{unit}"
    if not same_side:
        opposite = ("a rise of", "a fall of") if cause == "unusual_step" else ("above by", "below by")
        usual = f"usual{_basis(told)} {opposite[end < 0]} at least {limit}{unit}"
    if cause == "unusual_step":
        verb, to = "rose" if observed >= 0 else "fell", f" to {told.value}" if told.value else ""
        change = f"{to}, {size} times the value before" if times else f" by {size}{unit}{to} in one step"
        return f"{told.name} {verb}{change}, {usual}"
    if cause == "trend":
        drifted, to = told.verb("has drifted", "had drifted"), f" to {told.value}" if told.value else ""
        far = f"to {size} times" if times else f"by {size}{unit} against"
        return (
            f"{told.name} {drifted} {'up' if observed >= 0 else 'down'}{to}: {far} the mean of its last "
            f"{TREND_READINGS} readings, {usual}"
        )
    if cause == "unusual_noise":
        factor = f"a factor of {size}" if times else f"{size}{unit}"
        usual = f"usual{_basis(told)} at most {limit}" if times else usual
        return _noise(told, factor, usual, relative=relative)
    if cause == "relation" and told.value and told.context.implied is not None:
        return _relation(told, (f"{size} times" if times else f"{size}{unit}", usual), times=times)
    reference = "its forecast" if cause == "forecast" else "what the other channels imply"
    place = f"{size} times" if times else f"{size}{unit} {'above' if observed >= 0 else 'below'}"
    now = f"; it {told.verb('is', 'was')} {told.value}{' then' if told.ended else ''}" if told.value else ""
    was = "was up to" if told.ended and told.lasted else told.verb("is", "was")
    return f"{told.name} {was} {place} {reference}, {usual}{now}"


def _relation(told: _Told, change: tuple[str, str], *, times: bool) -> str:
    """Return the sentence about a broken relation.

    The difference of the last value and the mean difference, which is judged, are two numbers.

    Args:
        told: the numbers.
        change: the mean difference of the last readings and the usual one.
        times: the mean difference is a multiple of what is implied.
    """
    implied, value = shown_texts(told.context.implied or 0.0, told.context.value or 0.0)
    size, usual = change
    mean = f"on average over {told.verb('the last ', '')}{RELATION_READINGS} readings"
    now = f"{told.name} {told.verb('is', 'was')} {told.with_unit(value)}"
    imply = told.verb("imply", "implied")
    of_that = "that" if times else "above that" if told.observed >= 0 else "below that"
    return (
        f"{now}, where the other channels {imply} {told.with_unit(implied)}; {mean} it "
        f"{told.verb('is', 'was up to' if told.lasted else 'was')} {size} {of_that}, {usual}"
    )


def _noise(told: _Told, change: str, usual: str, *, relative: bool) -> str:
    """Return the sentence about a noise, or about a value that moves in one direction.

    Args:
        told: the numbers.
        change: the mean change of the last readings.
        usual: the usual change.
        relative: the numbers are shares of the value before.
    """
    value, mean = told.context.value, told.context.recent_mean
    if value is not None and mean is not None:
        moved = value - mean
        if relative:
            moved = moved / mean if mean > 0 else 0.0
        if abs(moved) >= MIN_CHANGES_OF_MOVEMENT * told.observed:
            verb = told.verb("has ", "had ") + ("risen" if moved > 0 else "fallen")
            side = "above" if moved > 0 else "below"
            (amount,) = shown_texts(abs(100 * moved if relative else moved))
            amount = f"{amount} %" if relative else told.with_unit(amount)
            return (
                f"{told.name} {verb} to {told.value}, {amount} {side} the mean of its last {MEAN_READINGS} "
                f"readings; it {told.verb('changes', 'changed')} by {change} a reading, {usual}"
            )
    jumps = f"{told.verb('goes', 'went')} up and down more than usual"
    average = f"on average over the last {MEAN_READINGS}"
    now = f"; it {told.verb('is', 'was')} {told.value}{' then' if told.ended else ''}" if told.value else ""
    return f"{told.name} {jumps}: by {change} from one reading to the next {average}, {usual}{now}"


def _basis(told: _Told) -> str:
    """Return the hours for which a range holds, "" for all."""
    text = _BASIS_TEXTS.get(told.context.basis, "")
    return text.replace("this time", "that time") if told.ended else text


def _range(told: _Told, head: str = "") -> str:
    """Return the usual range as the end of a sentence, "" where it has no end."""
    head = head or f"usual{_basis(told)} "
    low, high = told.stated_ends
    low_text, high_text, _ = shown_texts(low, high, told.observed)
    if math.isnan(low) and math.isnan(high):
        return ""
    if math.isnan(low) or math.isnan(high):
        words, limit = ("at most", high_text) if math.isnan(low) else ("at least", low_text)
        return f", {head}{words} {told.with_unit(limit)}"
    return f", {head}{told.with_unit(f'{low_text} to {high_text}')}"
