"""Kinds of the channels of a stock by their names: prices and amounts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NO_VOLUME = -1
_AMOUNT_NAMES = re.compile(
    r"vol(umes?)?(?![a-z])|qty|quantity|amount|size|turnover|trades|count|shares|interest", re.IGNORECASE
)
_SHARES_NAMES = re.compile(r"vol(umes?)?(?![a-z])|qty|quantity|shares", re.IGNORECASE)


def price_channels(channels: Sequence[str]) -> NDArray[np.bool_]:
    """Return the channels (C,) that are prices: all but amounts; the first one always is."""
    prices = np.array([_AMOUNT_NAMES.search(name) is None for name in channels], np.bool_)
    prices[0] = True
    return prices


def volume_channel(channels: Sequence[str]) -> int:
    """Return the index of the channel of traded shares, or ``NO_VOLUME``."""
    found = [i for i, name in enumerate(channels) if i and _SHARES_NAMES.search(name)]
    return found[0] if found else NO_VOLUME
