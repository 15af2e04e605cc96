"""The description of a stream's network: kind, sizes, head, output and activation.

It needs neither torch nor numba: the configuration checks it, a version of the registry stores it. The
kinds run live without torch (``detectors.forecasters.frozen_network``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from detectors.local_time import holiday_days


class Kind(StrEnum):
    """Kinds of networks."""

    FEEDFORWARD = "feedforward"
    RNN = "rnn"
    LSTM = "lstm"
    GRU = "gru"
    ENCODER_DECODER = "encoder_decoder"
    ATTENTION = "attention"
    BIDIRECTIONAL = "bidirectional"  # not causal: refused where points arrive one by one


class Head(StrEnum):
    """Number of points that a network reads, and of steps that it forecasts."""

    ONE_TO_ONE = "one_to_one"  # the next step from one point alone
    ONE_TO_MANY = "one_to_many"  # several steps, unrolled one by one from one hidden vector
    MANY_TO_ONE = "many_to_one"  # the next step after a sequence
    MANY_TO_MANY = "many_to_many"  # several steps after each point of a sequence


class Output(StrEnum):
    """Forecast distributions."""

    POINT = "point"
    GAUSSIAN = "gaussian"
    STUDENT_T = "student_t"
    QUANTILE = "quantile"
    NEGATIVE_BINOMIAL = "negative_binomial"  # of counts


class Activation(StrEnum):
    """Activations of hidden units."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    ELU = "elu"
    GELU = "gelu"
    SOFTMAX = "softmax"


class ExtraInputs(StrEnum):
    """Groups of further inputs, in their order; see ``calendar_inputs``."""

    CALENDAR = "calendar"  # hour, weekday and holiday of the next row
    LAGS = "lags"  # values of the same time yesterday and a week ago


#: Group of inputs → number of columns.
EXTRA_INPUTS: Final[Mapping[str, int]] = {ExtraInputs.CALENDAR: 18, ExtraInputs.LAGS: 4}
#: Kinds whose gates or cells fix the activation.
GATED_KINDS: Final = (Kind.LSTM, Kind.GRU, Kind.ENCODER_DECODER, Kind.ATTENTION)
#: Heads that forecast the next step only.
ONE_STEP_HEADS: Final = (Head.ONE_TO_ONE, Head.MANY_TO_ONE)
#: Size of a network → smallest and largest value.
SIZE_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "layers": (1, 8),
    "hidden": (4, 512),
    "window": (1, 256),
    "memory": (2, 256),
    "span": (2, 1000),
}
SPEC_TENSOR: Final = "network.spec"
WEIGHT_PREFIX: Final = "network.weight."
#: Size → kinds that have it. The others take no notice of it, so that naming it is a mistake.
KINDS_OF_SIZE: Final[Mapping[str, tuple[Kind, ...]]] = {
    "window": (Kind.FEEDFORWARD,),
    "memory": (Kind.ATTENTION,),
    "span": GATED_KINDS,
}


class Conflict(NamedTuple):
    """A choice that does not go with the others: its key, the reason, and what to do."""

    key: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network of a stream.

    window: points that a feed-forward network sees; memory: past states that attention sees; span: steps over
    which untrained gates remember; inputs: groups of ``ExtraInputs`` joined by commas; zone, holidays: time
    zone and country of these inputs.
    """

    kind: str = Kind.LSTM
    layers: int = 1
    hidden: int = 32
    head: str = Head.MANY_TO_MANY
    output: str = Output.STUDENT_T
    activation: str = Activation.TANH
    window: int = 32
    memory: int = 64
    span: int = 16
    inputs: str = ""
    zone: str = ""
    holidays: str = ""

    @property
    def extra_inputs(self) -> tuple[str, ...]:
        """Groups of inputs beside those of ``lstm_features``."""
        return tuple(self.inputs.split(",")) if self.inputs else ()

    @property
    def steps(self) -> int:
        """Number of steps ahead that the head forecasts."""
        return 1 if self.head in ONE_STEP_HEADS else 4

    @property
    def width(self) -> int:
        """Length of the vector that the head reads."""
        return 2 * self.hidden if self.kind == Kind.ATTENTION else self.hidden

    def tensor(self) -> NDArray[np.uint8]:
        """Return the spec as bytes, to be stored beside the weights.

        Keys that were added later are left out where they are empty: hashes and earlier versions go on.
        """
        values = {name: value for name, value in asdict(self).items() if value != ""}
        return np.frombuffer(json.dumps(values, sort_keys=True).encode(), np.uint8)


def with_inputs(spec: NetworkSpec, groups: Collection[str], zone: str, holidays: str) -> NetworkSpec:
    """Return ``spec`` with groups of ``ExtraInputs``.

    Args:
        spec: The network.
        groups: Names of the groups, in any order.
        zone: Time zone; "": UTC.
        holidays: Country of the holidays; "": none.
    """
    inputs = ",".join(one for one in ExtraInputs if one in groups)
    used = holidays if ExtraInputs.CALENDAR in groups else ""
    return replace(spec, inputs=inputs, zone=zone if groups else "", holidays=used)


def default_head(kind: str) -> Head:
    """Return the head of a kind that names none."""
    return Head.ONE_TO_MANY if kind == Kind.ENCODER_DECODER else Head.MANY_TO_MANY


def default_activation(kind: str) -> Activation:
    """Return the activation of a kind that names none."""
    return Activation.RELU if kind == Kind.FEEDFORWARD else Activation.TANH


def spec_of(tensors: Mapping[str, NDArray[Any]]) -> NetworkSpec | None:
    """Return the spec among the tensors of a version, None if there is none.

    Raises ValueError if the spec is damaged or of a network that cannot run live.
    """
    if SPEC_TENSOR not in tensors:
        return None
    values = json.loads(tensors[SPEC_TENSOR].tobytes())
    known = {field.name: field.type for field in fields(NetworkSpec)}
    if not isinstance(values, dict) or values.keys() - known.keys():
        raise ValueError(f"{SPEC_TENSOR} is not the description of a network of this version of forewatch")
    for name, value in values.items():
        if not isinstance(value, int if known[name] == "int" else str) or isinstance(value, bool):
            raise ValueError(f"{SPEC_TENSOR}: {name} is {value!r}")
    spec = NetworkSpec(**values)
    for name, words in (("kind", Kind), ("head", Head), ("output", Output), ("activation", Activation)):
        if getattr(spec, name) not in list(words):
            raise ValueError(f"{SPEC_TENSOR}: {name} {getattr(spec, name)!r} is unknown")
    for conflict in conflicts(spec):
        raise ValueError(f"{SPEC_TENSOR}: {conflict.key}: {conflict.reason}")
    return spec


def conflicts(spec: NetworkSpec) -> Iterator[Conflict]:
    """Yield the choices of ``spec`` that make no sense together or live."""
    if spec.kind == Kind.BIDIRECTIONAL:
        yield Conflict(
            "kind",
            "bidirectional looks ahead: its estimate of a point uses the points after it, which a live "
            "stream does not have yet",
            "choose lstm or gru; `forewatch compare` measures bidirectional on finished series",
        )
    for name, (least, most) in SIZE_LIMITS.items():
        if not least <= getattr(spec, name) <= most:
            yield Conflict(name, f"{getattr(spec, name)} is not from {least} to {most}", "choose another one")
    yield from _input_conflicts(spec)
    yield from _activation_conflicts(spec)
    yield from _head_conflicts(spec)


def _input_conflicts(spec: NetworkSpec) -> Iterator[Conflict]:
    groups = spec.extra_inputs
    if list(groups) != [one for one in ExtraInputs if one in groups]:
        yield Conflict("inputs", f"{spec.inputs} is not some of {', '.join(ExtraInputs)}", "choose of these")
    try:
        holiday_days(spec.holidays)
    except ValueError as error:
        yield Conflict("holidays", str(error), "choose another country")
    try:
        ZoneInfo(spec.zone or "UTC")
    except (ValueError, OSError, LookupError):
        yield Conflict("zone", f"there is no time zone {spec.zone!r}", "choose a name such as Europe/Berlin")


def _activation_conflicts(spec: NetworkSpec) -> Iterator[Conflict]:
    if spec.activation == Activation.SOFTMAX:
        yield Conflict(
            "activation",
            "softmax makes the units of a layer share one sum, so it gives probabilities of classes: "
            "attention weighs its memory by it, and streams of events end in it",
            "choose tanh, sigmoid, relu, leaky_relu, elu or gelu",
        )
    elif spec.kind in GATED_KINDS and spec.activation != Activation.TANH:
        yield Conflict(
            "activation",
            f"the cell of {spec.kind} has sigmoid gates and tanh, which keep its state bounded",
            "leave `activation` out, or choose kind rnn or feedforward",
        )


def _head_conflicts(spec: NetworkSpec) -> Iterator[Conflict]:
    if spec.kind == Kind.ENCODER_DECODER and spec.head != Head.ONE_TO_MANY:
        yield Conflict(
            "head",
            f"the decoder of {spec.kind} unrolls its forecasts step by step, which is one_to_many",
            "leave `head` out, or choose kind lstm",
        )
    elif spec.head == Head.ONE_TO_ONE and not (spec.kind == Kind.FEEDFORWARD and spec.window == 1):
        yield Conflict(
            "head",
            "one_to_one forecasts from one point alone; a window or a recurrent state brings earlier points",
            "choose `kind: feedforward` with `window: 1`, or head many_to_one",
        )
    elif spec.kind == Kind.FEEDFORWARD and spec.window == 1 and spec.head.startswith("many"):
        yield Conflict(
            "window",
            f"a window of one point is no sequence, and {spec.head} reads one",
            "choose `head: one_to_one`, or a window of at least 2",
        )
