"""Forecasters: one module each, built by name.

A new forecaster is a module and an entry in ``FORECASTER_REGISTRY``.

>>> forecaster = build("lstm", hidden=16, layers=2)
>>> forecaster.config.layers
2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from detectors.forecasters.base import Forecaster

#: Name → module and class. A module is imported when it is used, because torch takes a second to import.
FORECASTER_REGISTRY: Final[dict[str, tuple[str, str]]] = {
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
    """Build a forecaster by name; the same options always give the same weights.

    ``options`` are the fields of its config class. Raises ValueError for an unknown name or option, or for a
    value that the forecaster does not support.
    """
    import torch

    if name not in FORECASTER_REGISTRY:
        raise ValueError(f"forecaster {name!r} is unknown; there are {', '.join(FORECASTER_REGISTRY)}")
    module, attribute = FORECASTER_REGISTRY[name]
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
