"""torch's exporters: a module, exported program or TorchScript module to an `ir.Model`."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autoglm.errors import InputError, ModelError
from autoglm.frontends import finish
from autoglm.spec import Value

if TYPE_CHECKING:
    import onnx_ir as ir

_OPSET = 20
_SCRIPT_OPSET = 18
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_TRACE = "pkg.torch.onnx.stack_trace"


def need_torch(source: str) -> None:
    """ModelError with the install command where torch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            "Reading {source} needs PyTorch, which is not installed.",
            hint="pip install 'open-autoglm[torch]', or export the model to ONNX first.",
            source=source,
        )


def export(source: Any, example_inputs: Sequence[Value] | None) -> ir.Model:
    """The ONNX model of an nn.Module, ExportedProgram or ScriptModule, named and with shapes."""
    import torch

    if isinstance(source, torch.export.ExportedProgram):
        model = _dynamo(source, (), {}, None)
    elif isinstance(source, torch.jit.ScriptModule):
        model = _script(source, example_inputs)
    else:
        model = _module(source, example_inputs)
    _inline(model)
    _mark_lines(model)
    return finish(model)


def _module(module: Any, example_inputs: Sequence[Value] | None) -> ir.Model:
    if example_inputs is None:
        raise _needs_inputs(type(module).__name__)
    arguments, keywords = as_tensors(example_inputs)
    training = module.training
    module.eval()
    try:
        shapes = (
            tuple(_batch(a) for a in arguments),
            {name: _batch(a) for name, a in keywords.items()},
        )
        return _dynamo(module, arguments, keywords, shapes)
    finally:
        module.train(training)


def _batch(value: Any) -> Any:
    # AUTO lets the exporter find out whether the batch may vary; integer inputs are token ids,
    # whose length may too.
    import torch

    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        return None
    free = value.dim() if not value.is_floating_point() else 1
    return {axis: torch.export.Dim.AUTO for axis in range(free) if value.shape[axis] > 1} or None


def _dynamo(source: Any, arguments: tuple[Any, ...], keywords: Any, shapes: Any) -> ir.Model:
    import torch

    options: dict[str, Any] = {"dynamo": True, "verbose": False, "opset_version": _OPSET}
    if shapes is not None and any(v is not None for v in (*shapes[0], *shapes[1].values())):
        options["dynamic_shapes"] = shapes[1] or shapes[0]
        if shapes[0] and shapes[1]:
            options.pop("dynamic_shapes")  # one form or the other is all that the exporter takes
    try:
        with quiet():
            program = torch.onnx.export(source, arguments, kwargs=keywords or None, **options)
    except Exception as error:  # the exporter wraps whatever the model's own code raises
        raise _failed(source, error) from error
    if program is None:
        raise ModelError("torch.onnx.export gave no program for {kind}.", kind=_kind(source))
    exported: ir.Model = program.model
    return exported


def _script(module: Any, example_inputs: Sequence[Value] | None) -> ir.Model:
    import onnx
    import onnx_ir as ir
    import torch

    if example_inputs is None:
        example_inputs = _declared_inputs(module)
    arguments, keywords = as_tensors(example_inputs)
    names = [i.debugName().split(".")[0] for i in list(module.forward.graph.inputs())[1:]]
    arguments = (*arguments, *(keywords[n] for n in names[len(arguments) :] if n in keywords))
    sink = io.BytesIO()
    try:
        with quiet():
            torch.onnx.export(
                module.eval(),
                arguments,
                sink,
                dynamo=False,
                opset_version=_SCRIPT_OPSET,
                input_names=names[: len(arguments)],
            )
    except Exception as error:  # the exporter wraps whatever the model's own code raises
        raise _failed(module, error) from error
    exported: ir.Model = ir.from_proto(onnx.ModelProto.FromString(sink.getvalue()))
    return exported


def _declared_inputs(module: Any) -> list[Any]:
    """Zeros of the shapes that the archive states; ModelError where it states none."""
    import torch

    made: list[Any] = []
    for value in list(module.forward.graph.inputs())[1:]:
        kind = value.type()
        sizes = kind.sizes() if kind.kind() == "TensorType" else None
        if sizes is None or kind.dtype() is None:
            raise _needs_inputs("this TorchScript module")
        made.append(torch.zeros(sizes, dtype=kind.dtype()))
    return made


def _needs_inputs(what: str) -> InputError:
    return InputError(
        "Exporting {what} needs example inputs: PyTorch traces the model with them.",
        hint="Give them with --inputs in.npz or --input-shape name=1x3x224x224 "
        "(in Python: example_inputs=[...]).",
        what=what,
    )


def as_tensors(values: Sequence[Value] | Mapping[str, Value]) -> tuple[tuple[Any, ...], Any]:
    """Example inputs as torch tensors: positional ones, and those given by name."""
    if isinstance(values, Mapping):
        return (), {name: _tensor(v) for name, v in values.items()}
    return tuple(_tensor(v) for v in values), {}


def _tensor(value: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape).copy())
    return value


def _failed(source: Any, error: Exception) -> ModelError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return ModelError(
        "PyTorch cannot export {kind} to ONNX: {reason}.",
        hint="Check the example inputs; run torch.export.export on the model for the whole error.",
        kind=_kind(source),
        reason=(lines[0] if lines else type(cause).__name__)[:300],
    )


def _kind(source: Any) -> str:
    return type(source).__name__


def _inline(model: ir.Model) -> None:
    from onnx_ir.passes.common import InlinePass

    if model.functions:
        InlinePass()(model)
        model.functions.clear()


def _mark_lines(model: ir.Model) -> None:
    """Keep the model's own source line of every node as `autoglm.line`."""
    for node in model.graph.all_nodes():
        frames = _FRAME.findall(node.metadata_props.get(_TRACE, ""))
        own = [f for f in frames if "/torch/" not in f[0]] or frames
        if own:
            node.metadata_props["autoglm.line"] = f"{own[-1][0]}:{own[-1][1]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' warnings and log lines off the user's terminal."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
