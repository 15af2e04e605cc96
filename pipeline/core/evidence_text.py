"""What each kind of evidence means, in words: a value inside the forecast's band may have another reason."""

from __future__ import annotations

#: Word of ``detectors.base.EVIDENCE`` → what raised the anomaly.
WHY = {
    "limits": "the static limits",
    "channels": "the channels together: they no longer move as they did",
    "settled": "a channel that has left where it had settled",
    "forecast": "the forecast: it misses by more than usual, now or for a while",
    "shape": "the shape of the last rows: no earlier stretch looked like it",
    "value": "the value: none near it was ever seen",
    "range": "the range: it lies outside of all that was seen",
    "season": "the time of day: no earlier day had such a value then",
    "level": "the level: the mean of the last rows has moved",
    "step": "the step from the value before",
    "stuck": "the value repeating for longer than it ever did",
    "return": "the return: large for the volatility of late",
    "burst": "the volatility: large for that of late",
}
