"""Forecasters: history → what is expected next. One file each; a new one is a file and a line in
``FORECASTERS``.

>>> forecaster = build("lstm", hidden=16, layers=2)
>>> forecaster.config.layers
2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from detectors.forecasters.base import Forecaster

#: name → module and class; imported when asked for, because torch takes a second to import.
FORECASTERS: Final[dict[str, tuple[str, str]]] = {
    "feedforward": ("feedforward", "FeedForward"),
    "rnn": ("rnn", "RNN"),
    "lstm": ("lstm", "LSTM"),
    "gru": ("gru", "GRU"),
    "encoder_decoder": ("encoder_decoder", "EncoderDecoder"),
    "attention": ("attention", "Attention"),
    "bidirectional": ("bidirectional", "Bidirectional"),
    "seasonal_naive": ("seasonal_naive", "SeasonalNaive"),
    "exponential": ("exponential", "Exponential"),
    "snarimax": ("snarimax", "Snarimax"),
}


def build(name: str, **options: Any) -> Forecaster:
    """The forecaster ``name`` with the options of its config; the same options always give the same weights.

    Raises ValueError for an unknown name or option, or one that the forecaster cannot do.
    """
    import torch

    if name not in FORECASTERS:
        raise ValueError(f"forecaster {name!r} is unknown; there are {', '.join(FORECASTERS)}")
    module, attribute = FORECASTERS[name]
    kind = getattr(import_module(f"detectors.forecasters.{module}"), attribute)
    try:
        config = kind.config_class(**options)
    except TypeError as error:
        known = ", ".join(kind.config_class.__dataclass_fields__)
        raise ValueError(f"forecaster {name} has no such option ({error}); it has {known}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        forecaster: Forecaster = kind(config)
    return forecaster
