"""Text of an anomaly: its quantity, its value and its usual range.

Every message, page and command prints this text, so that all state the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from pipeline.core.data_units import data_unit, in_data_unit
from pipeline.core.deviation_size import size_text, value_is_outside
from pipeline.core.durations import DAY_NS, SECOND_NS, duration_text
from pipeline.core.iso_times import show_clock_time, show_day_and_clock_time
from pipeline.core.shown_numbers import shown_texts
from pipeline.core.told_quantity import ToldQuantity
from pipeline.core.types import Anomaly, AnomalyState, DeviationContext, DeviationCourse

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
#: Duration of a deviation from which the time of its peak is stated.
MIN_LASTED_WITH_TIME_NS = 3600 * SECOND_NS
#: Causes that state no rarity: a limit and an impossible value are wrong however often they come.
CAUSES_WITHOUT_RARITY = ("static_limit", "impossible_value")
#: Basis of a range of one time of day (``detectors.base.BASES``) → the rows from which it was learned.
BASIS_TEXTS = {
    "time_of_day": " at this time of day",
    "working_days": " at this time on working days",
    "weekends": " at this time on weekends",
    "similar_days": " at this time on such days of the week",
}
_UNKNOWN = DeviationContext("none", None, None)


def usual_range_text(
    anomaly: Anomaly, unit: str | None = None, *, ended: bool = False, zone: str | None = None
) -> str | None:
    """Return the sentence of an anomaly, or None under the decision "surprise".

    Args:
        anomaly: the anomaly.
        unit: unit of the leading channel.
        ended: write in the past tense.
        zone: time zone of the time of the peak, "" for UTC, None for no time.
    """
    if not anomaly.ratio:
        return None
    anomaly, unit = in_data_unit(anomaly, unit)
    at = anomaly.leading_channel
    numbers = (anomaly.observed[at], anomaly.lower[at], anomaly.upper[at], anomaly.expected[at])
    when = peak_time_text(anomaly, zone) if ended and zone is not None else ""
    known = (anomaly.context or _UNKNOWN, anomaly.course or DeviationCourse(), unit, ended)
    told = ToldQuantity(anomaly.channels[at], *numbers, *known, lasted=anomaly.readings > 1, when=when)
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
            # The mean of some readings ago is near that of now, and a single value need not be.
            is_now = ended or anomaly.peak_ns >= anomaly.end_ns
            return _level(told, value_is_outside(anomaly) and is_now)
    return _value(told, anomaly.cause)


def peak_time_text(anomaly: Anomaly, zone: str) -> str:
    """Return the time of the peak of a long deviation, "" for a short one.

    Args:
        anomaly: the anomaly.
        zone: time zone, "" for UTC.
    """
    lasted_ns = anomaly.lasted_until_ns - anomaly.began_ns
    if anomaly.course is None or lasted_ns <= MIN_LASTED_WITH_TIME_NS:
        return ""
    show = show_clock_time if lasted_ns < DAY_NS else show_day_and_clock_time
    return f" at {show(anomaly.peak_ns, zone)}"


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
    unit, factor = data_unit(units.get(name), min(abs(context.implied), abs(context.value)))
    implied, value = shown_texts(context.implied * factor, context.value * factor)
    other, factor = data_unit(units.get(context.partner), context.partner_value or 0.0)
    (beside,) = shown_texts(math.nan if context.partner_value is None else context.partner_value * factor)
    partner, own = (f" {one}" if one else "" for one in (other, unit))
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


def _level(told: ToldQuantity, value_is_outside: bool) -> str:
    """Return the sentence about a mean, with the value if that is outside."""
    mean, over = told.with_unit(told.amount), f"smoothed over about {MEAN_READINGS} readings"
    if told.extreme is not None:
        value = told.with_unit(shown_texts(told.extreme)[0])
        usual = _range(told, "its usual range of ").removeprefix(", ")
        smoothed = f"smoothed over about {MEAN_READINGS} readings it left {usual}{_basis(told)}"
        return f"{told.name} was as {told.side} as {value}; {smoothed}"
    if value_is_outside:
        now = f"{told.name} {told.verb('is', 'was')} {told.value}"
        return f"{now}; {over} it {told.was} {mean}{_range(told)}"
    return f"{told.name}, {over}, {told.was} {mean}{_range(told)}"


def _value(told: ToldQuantity, cause: str) -> str:
    """Return the sentence about a value, or about values beyond both ends of a range."""
    if cause != "unusual_value":
        return f"{told.is_(told.amount)}{_range(told)}"
    if not told.leaves_both_ends:
        return f"{_farther_value(told)}{told.with_unit(told.amount)}{told.when}{_range(told)}"
    lowest, highest = told.course.lowest or 0.0, told.course.highest or 0.0
    texts = shown_texts(lowest, highest, *told.stated_ends)
    extremes = f"as low as {texts[0]} to as high as {told.with_unit(texts[1])}"
    return f"{told.name} went from {extremes}{_range(told)}"


def _farther_value(told: ToldQuantity) -> str:
    """Return what the sentence about a value says before it.

    The range of one hour can be narrower than that of another, so that the value
    farthest outside need not be the highest or the lowest one.
    """
    far = told.extreme
    if far is None or not (far > told.observed if told.side == "high" else far < told.observed):
        return f"{told.name} {told.was} "
    (extreme,), (value,) = shown_texts(far), shown_texts(told.observed)
    if extreme == value:
        return f"{told.name} {told.was} "
    return f"{told.name} was as {told.side} as {told.with_unit(extreme)}; it was farthest outside with "


def _static_limit(told: ToldQuantity) -> str:
    side, end = ("above", told.high) if told.observed > told.high else ("below", told.low)
    amount, limit = shown_texts(told.observed, end)
    return f"{told.is_(amount)}, {side} its limit of {told.with_unit(limit)}"


def _forecast(told: ToldQuantity) -> str:
    forecast = told.with_unit(shown_texts(told.expected, *told.stated_ends)[0])
    return f"{told.is_(told.amount)}, where {forecast} was forecast{_range(told)}"


def _absence(told: ToldQuantity) -> str:
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


def _standstill(told: ToldQuantity, every_ns: int) -> str:
    run = round(told.observed)
    lasted = duration_text(timedelta(microseconds=run * every_ns / 1000)) if every_ns > 0 else ""
    length = f"{run:,} readings{f' ({lasted})' if lasted else ''}"
    repeated = told.value or "the same value"
    usual = math.floor(told.high) if math.isfinite(told.high) else None
    longest = (
        "" if usual is None else f", at most {usual:,} usual" if usual else ", usually it changes each time"
    )
    return f"{told.name} {told.verb('has repeated', 'repeated')} {repeated} for {length}{longest}"


def _change(told: ToldQuantity, cause: str, *, relative: bool) -> str:
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
        return _trend(told, f"to {size} times" if times else f"by {size}{unit} against", usual)
    if cause == "unusual_noise":
        factor = f"a factor of {size}" if times else f"{size}{unit}"
        usual = f"usual{_basis(told)} at most {limit}" if times else usual
        return _noise(told, factor, usual, relative=relative)
    if cause == "relation" and told.value and told.context.implied is not None:
        return _relation(told, (f"{size} times" if times else f"{size}{unit}", usual), times=times)
    reference = "its forecast" if cause == "forecast" else "what the other channels imply"
    place = f"{size} times" if times else f"{size}{unit} {'above' if observed >= 0 else 'below'}"
    now = f"; it {told.verb('is', 'was')} {told.value}{told.then}" if told.value else ""
    was = "was up to" if told.ended and told.lasted else told.verb("is", "was")
    return f"{told.name} {was} {place} {reference}, {usual}{now}"


def _trend(told: ToldQuantity, far: str, usual: str) -> str:
    """Return the sentence about the trend of a price.

    Args:
        told: the numbers.
        far: how far the price is from its mean.
        usual: the usual distance.
    """
    drifted, side = told.verb("has drifted", "had drifted"), "up" if told.observed >= 0 else "down"
    to = f" to {told.value}{told.when}" if told.value else ""
    smoothed = f"its value smoothed over about {TREND_READINGS} readings"
    return f"{told.name} {drifted} {side}{to}: {far} {smoothed}, {usual}"


def _relation(told: ToldQuantity, change: tuple[str, str], *, times: bool) -> str:
    """Return the sentence about a broken relation.

    The difference of the last value and the mean difference, which is judged, are two numbers.

    Args:
        told: the numbers.
        change: the mean difference of the last readings and the usual one.
        times: the mean difference is a multiple of what is implied.
    """
    implied, value = shown_texts(told.context.implied or 0.0, told.context.value or 0.0)
    size, usual = change
    mean = f"smoothed over about {RELATION_READINGS} readings"
    now = f"{told.name} {told.verb('is', 'was')} {told.with_unit(value)}{told.when}"
    imply = told.verb("imply", "implied")
    of_that = "that" if times else "above that" if told.observed >= 0 else "below that"
    return (
        f"{now}, where the other channels {imply} {told.with_unit(implied)}; {mean} it "
        f"{told.verb('is', 'was up to' if told.lasted else 'was')} {size} {of_that}, {usual}"
    )


def _noise(told: ToldQuantity, change: str, usual: str, *, relative: bool) -> str:
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
                f"{told.name} {verb} to {told.value}, {amount} {side} its value smoothed over about "
                f"{MEAN_READINGS} readings; it {told.verb('changes', 'changed')} by {change} "
                f"a reading, {usual}"
            )
    jumps = f"{told.verb('goes', 'went')} up and down more than usual"
    average = f"smoothed over about {MEAN_READINGS} readings"
    now = f"; it {told.verb('is', 'was')} {told.value}{told.then}" if told.value else ""
    return f"{told.name} {jumps}: by {change} from one reading to the next, {average}, {usual}{now}"


def _basis(told: ToldQuantity) -> str:
    """Return the hours for which a range holds, "" for all."""
    text = BASIS_TEXTS.get(told.context.basis, "")
    return text.replace("this time", "that time") if told.ended else text


def _range(told: ToldQuantity, head: str = "") -> str:
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
