"""The model of a stream's own forecaster, and its rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from detectors.forecasters.network_spec import (
    KINDS_OF_SIZE,
    SIZE_LIMITS,
    Conflict,
    NetworkSpec,
    conflicts,
    default_activation,
    default_head,
    with_inputs,
)
from pipeline.config.field_types import ConfigModel

KindName = Literal["feedforward", "rnn", "lstm", "gru", "encoder_decoder", "attention", "bidirectional"]
HeadName = Literal["one_to_one", "one_to_many", "many_to_one", "many_to_many"]
OutputName = Literal["point", "gaussian", "student_t", "quantile", "negative_binomial"]
InputsName = Literal["calendar", "lags"]
ActivationName = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "softmax"]

_DEFAULTS = NetworkSpec()


def _size(name: str, description: str) -> int:
    low, high = SIZE_LIMITS[name]
    field: int = Field(getattr(_DEFAULTS, name), ge=low, le=high, description=description)
    return field


class ForecasterConfig(ConfigModel):
    """Network of the stream in place of the shared LSTM, trained by its training jobs."""

    kind: KindName = Field(
        description="feedforward (the baseline, no memory), rnn, gru, lstm, encoder_decoder or attention; "
        "bidirectional looks ahead and is refused here"
    )
    layers: int = _size("layers", "stacked layers")
    hidden: int = _size("hidden", "units of a layer")
    head: HeadName | None = Field(
        None,
        description="one_to_one (the next step from one point alone), many_to_one (the next step after a "
        "sequence), many_to_many (steps 1 and 4 after each point) or one_to_many (four steps, unrolled one "
        "by one); default: many_to_many, for encoder_decoder one_to_many",
    )
    output: OutputName = Field(
        "student_t",
        description="point, gaussian, student_t, quantile, or negative_binomial (for counts): what the "
        "network forecasts, trained by its proper score",
    )
    activation: ActivationName | None = Field(
        None,
        description="of rnn and feedforward: sigmoid, tanh, relu, leaky_relu, elu or gelu; default: tanh, "
        "for feedforward relu; the gated kinds have sigmoid and tanh",
    )
    window: int = _size("window", "points that feedforward sees")
    memory: int = _size("memory", "past states that attention sees")
    span: int = _size("span", "steps over which the untrained gates of gated kinds remember")

    inputs: list[InputsName] = Field(
        default_factory=list,
        description="inputs beside the values: calendar (hour, weekday and holiday of the next point, by "
        "`timezone` and `holidays` of the stream), lags (values of the same time yesterday and a week ago)",
    )

    @property
    def spec(self) -> NetworkSpec:
        """The network that this names, without time zone and holidays."""
        network = NetworkSpec(
            kind=self.kind,
            layers=self.layers,
            hidden=self.hidden,
            head=str(self.head or default_head(self.kind)),
            output=self.output,
            activation=str(self.activation or default_activation(self.kind)),
            window=self.window,
            memory=self.memory,
            span=self.span,
        )
        return with_inputs(network, self.inputs, "", "")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield the keys that make no sense together."""
        yield from conflicts(self.spec)
        if len(set(self.inputs)) < len(self.inputs):
            yield Conflict("inputs", "names one twice", "remove it")
        for name, kinds in KINDS_OF_SIZE.items():
            if name in self.model_fields_set and self.kind not in kinds:
                yield Conflict(
                    name, f"{self.kind} has no {name}; {' and '.join(kinds)} have", "remove the key"
                )
