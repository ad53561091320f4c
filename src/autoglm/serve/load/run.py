"""From a target and a list of concurrencies to a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from autoglm.errors import (
    AutoGLMError,
    ConfigError,
    InputError,
    ModelNotServedError,
    NotOfferedError,
)
from autoglm.serve.load.answers import UNREADABLE, Outputs, Signature
from autoglm.serve.load.refusal import NoServerError
from autoglm.serve.load.tally import Load
from autoglm.serve.load.target import Target
from autoglm.spec import TensorInfo, Value
from autoglm.tensor.disk import load_arrays, random_feeds

_WARM_S = 0.5
_HTTP = ("autoglm.serve.load.http", "Http")
_WIRES = {
    "oip": _HTTP,
    "oip-binary": _HTTP,
    "rest": _HTTP,
    "grpc": ("autoglm.serve.load.grpc", "Grpc"),
    "mqtt": ("autoglm.serve.load.mqtt", "Mqtt"),
}


class Wire(Protocol):
    """One model over one protocol."""

    def models(self) -> Sequence[str]:
        """The names of the models that are ready; () where the protocol has no question for it."""

    def signature(self) -> Signature | None:
        """What the model takes and gives; None where the protocol has no question for it."""

    def first(self, inputs: Mapping[str, Value], told: Signature | None) -> Outputs:
        """Ask once; its answer is what all others are compared with."""

    def press(self, concurrency: int, seconds: float) -> Load:
        """Keep so many questions under way for so long."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked, and for how long."""

    concurrency: Sequence[int] = (1, 16, 64)
    seconds: float = 5.0  # of each concurrency
    inputs: str = ""  # a file; "" = random values, the same for the same seed
    shapes: Mapping[str, Sequence[int]] | None = None  # of random inputs, over the metadata's
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What came back."""

    target: Target
    inputs: Mapping[str, str]  # name -> dtype and shape
    outputs: Mapping[str, str]
    unfit: Sequence[str]  # where an answer is not as the metadata says
    loads: Sequence[Load]

    @property
    def right(self) -> bool:
        """Whether every answer was."""
        return not self.unfit and not any(load.errors for load in self.loads)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        target = self.target
        return {
            "url": target.shown,
            "model": target.model,
            "version": target.version,
            "protocol": target.protocol,
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "unfit": list(self.unfit),
            "loads": [load.to_dict() for load in self.loads],
        }


def measure(
    target: Target, asking: Asking, *, step: Callable[[str], None] = lambda _: None
) -> Report:
    """Ask once, check the answer, then press; ServeError where nobody answers or it refuses."""
    target = named(target.resolved())
    wire = open_wire(target)
    told = wire.signature()
    inputs = inputs_for(told, asking)
    outputs = wire.first(inputs, told)
    loads = []
    for concurrency in asking.concurrency:
        step(f"{concurrency}")
        wire.press(concurrency, min(_WARM_S, asking.seconds))
        loads.append(wire.press(concurrency, asking.seconds))
    unfit = told.unfit(outputs) if told else []
    return Report(target, _shown(inputs), _shown(outputs), unfit, loads)


def named(target: Target) -> Target:
    """With the server's one model where none is named."""
    if target.model:
        return target
    names = _listed(target)
    if len(names) != 1:
        raise InputError(
            "Which model of {url} is to be asked? It lists: {known}.",
            hint="Name it with --model NAME.",
            url=target.shown,
            known=", ".join(names) or "none",
        )
    return replace(target, model=names[0])


def _listed(target: Target) -> Sequence[str]:
    wire = open_wire(target)
    try:
        return sorted(set(wire.models()))
    except (ModelNotServedError, NotOfferedError):  # it has no such page
        return ()
    except UNREADABLE as error:
        if isinstance(error, AutoGLMError):
            raise
        raise NoServerError(
            "The server at {url} does not list its models: {reason}.",
            hint="Name it with --model NAME.",
            url=target.shown,
            reason=str(error)[:200] or type(error).__name__,
        ) from error


def open_wire(target: Target) -> Wire:
    """The wire of a resolved target; its library is imported here."""
    module, name = _WIRES[target.protocol]
    try:
        made: Wire = getattr(import_module(module), name)(target)
    except ImportError as error:
        raise ConfigError(
            "Protocol {protocol} needs {library}, which is not installed.",
            hint="pip install 'open-autoglm[serve]' brings http, grpc and mqtt.",
            protocol=target.protocol,
            library=error.name or str(error),
        ) from error
    return made


def inputs_for(told: Signature | None, asking: Asking) -> dict[str, Value]:
    """The inputs of the file, or random ones of the model's shapes; open dimensions are 1."""
    infos = told.inputs if told else ()  # () also where a server's metadata are empty
    if asking.inputs:
        return load_arrays(asking.inputs, infos)
    shapes = asking.shapes or {}
    if not infos:
        infos = tuple(TensorInfo(name, "float32", tuple(dims)) for name, dims in shapes.items())
    if not infos:
        raise InputError(
            "The server does not tell the model's inputs.",
            hint="Give them with --inputs FILE, or as random float32 with --shape NAME=1,128.",
        )
    if unknown := sorted(set(shapes) - {info.name for info in infos}):
        raise InputError(
            "The model has no input {name!r}; it takes {known}.",
            name=unknown[0],
            known=", ".join(info.name for info in infos),
        )
    bound = [TensorInfo(i.name, i.dtype, tuple(shapes.get(i.name) or i.shape or ())) for i in infos]
    return random_feeds(bound, asking.seed)


def _shown(values: Mapping[str, Value]) -> dict[str, str]:
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return {
        name: f"{'string' if a.dtype.kind in 'OUS' else a.dtype} {'x'.join(map(str, a.shape))}"
        for name, a in arrays.items()
    }
