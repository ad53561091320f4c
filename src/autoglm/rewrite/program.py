"""Flatten a graph into a list of calls, once, so that an interpreting engine only walks the list.

The engines that interpret (PyTorch, our own NumPy kernels) differ in kernels and in how a constant
is held; slots, lifetimes, sub-graphs and attribute defaults are the same, and live here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import onnx_ir as ir

from autoglm.errors import AutoGLMError, CompileError, ExecutionError
from autoglm.rewrite.facts import dtype_name, node_name, op_name, since_version, sources
from autoglm.rewrite.shapes import infer_in_place
from autoglm.spec import Value

if TYPE_CHECKING:
    import numpy as np

ABSENT = 0  # the slot that always holds None: an optional input that is left out


@dataclass(frozen=True, slots=True)
class Body:
    """A sub-graph of If, Loop or Scan, and which of the node's captured values it reads."""

    program: Program
    start: int
    stop: int

    def run(self, inputs: Sequence[Value], captured: Sequence[Value]) -> list[Value]:
        """Run the body once on its own inputs and the node's captured outer values."""
        return self.program.run([*inputs, *captured[self.start : self.stop]])


@dataclass(frozen=True, slots=True)
class Call:
    """One node as a kernel sees it: attributes with defaults filled in, and declared dtypes."""

    name: str
    op: str  # "Conv" or "domain::Op"
    since: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]  # dtype names; "" where absent or unknown
    outputs: tuple[str, ...]
    known: tuple[np.ndarray[Any, Any] | None, ...]  # inputs that are constants
    wanted: tuple[bool, ...]  # outputs that someone reads
    ranks: tuple[int | None, ...] = ()
    sources: frozenset[str] = frozenset()
    bodies: Mapping[str, Body] = field(default_factory=dict)

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes.get(attribute)

    @property
    def arity(self) -> int:
        """Number of the node's own inputs; captured values of its bodies follow them."""
        return len(self.inputs)


Bound = Callable[..., Any]


class Engine(Protocol):
    """What an interpreting backend brings."""

    default: str  # the form of a constant that no node asked for: captured, or an output

    def bind(self, call: Call) -> Bound:
        """The callable of one node; CompileError where there is no kernel."""

    def constant(self, tensor: ir.TensorProtocol, variant: str) -> Value:
        """A constant as the kernels take it."""

    def variant(self, call: Call, position: int) -> str | None:
        """Which form of a constant that input takes; None where the callable holds it already."""


@dataclass(frozen=True, slots=True)
class _Step:
    run: Bound
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]
    name: str
    op: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The constants that a graph and its bodies share: what they are, and each form loaded once."""

    tensors: dict[int, ir.TensorProtocol] = field(default_factory=dict)
    loaded: dict[tuple[int, str], Value] = field(default_factory=dict)


class Program:
    """A graph as a flat list of calls over slots; values are dropped after their last use."""

    def __init__(
        self,
        graph: ir.Graph,
        engine: Engine,
        opsets: Mapping[str, int],
        scope: Scope | None = None,
    ) -> None:
        builder = _Builder(graph, engine, opsets, scope or Scope())
        self.inputs = tuple(v.name or "" for v in builder.own_inputs)
        self.captures = tuple(v.name or "" for v in builder.captures)
        self.capture_values = tuple(builder.captures)
        self._steps = builder.finish()
        self._template = builder.template
        self._arguments = tuple(
            builder.slots[id(v)] for v in (*builder.own_inputs, *builder.captures)
        )
        self._results = builder.results

    def run(self, arguments: Sequence[Value]) -> list[Value]:
        """Run once; `arguments` are the graph's inputs, then the captured values."""
        values = self._filled(arguments)
        step = None
        try:
            for step in self._steps:
                _take(step, values)
        except AutoGLMError:
            raise
        except Exception as error:  # a kernel may raise anything; it is reported by its node
            raise _failed(step, error) from error
        return [values[slot] for slot in self._results]

    def run_timed(self, arguments: Sequence[Value], seconds: dict[str, float]) -> list[Value]:
        """`run`, adding to `seconds` what each node took; bodies count into their node."""
        values = self._filled(arguments)
        for step in self._steps:
            start = perf_counter()
            try:
                _take(step, values)
            except AutoGLMError:
                raise
            except Exception as error:  # as in `run`
                raise _failed(step, error) from error
            seconds[step.name] = seconds.get(step.name, 0.0) + perf_counter() - start
        return [values[slot] for slot in self._results]

    def _filled(self, arguments: Sequence[Value]) -> list[Value]:
        values = self._template.copy()
        for slot, argument in zip(self._arguments, arguments, strict=True):
            values[slot] = argument
        return values

    def constants(self) -> list[Value]:
        """Every constant the program holds."""
        return [v for v in self._template if v is not None]


def _take(step: _Step, values: list[Value]) -> None:
    result = step.run(*[values[i] for i in step.inputs])
    if isinstance(result, tuple):
        for slot, value in zip(step.outputs, result, strict=False):
            values[slot] = value
    else:
        values[step.outputs[0]] = result
    for slot in step.dead:
        values[slot] = None


def _failed(step: _Step | None, error: Exception) -> ExecutionError:
    return ExecutionError(
        "Node {node!r} ({op}) failed: {cause}",
        node=step.name if step else "",
        op=step.op if step else "",
        cause=f"{type(error).__name__}: {_first_line(error)}",
    )


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")[:300]


class _Builder:
    """Collects slots and steps of one graph."""

    def __init__(
        self, graph: ir.Graph, engine: Engine, opsets: Mapping[str, int], scope: Scope
    ) -> None:
        self.engine = engine
        self.opsets = opsets
        self.graph = graph
        self.template: list[Value] = [None]
        self.slots: dict[int, int] = {}
        self.captures: list[ir.Value] = []
        self.scope = scope
        self.tensors = scope.tensors
        self.constants: dict[tuple[int, str], int] = {}
        self.calls: list[tuple[Bound, tuple[int, ...], tuple[int, ...], Call]] = []
        self.own_inputs = [v for v in graph.inputs if v.name not in graph.initializers]
        self.local = {id(v) for v in graph.inputs}
        for value in self.own_inputs:
            self._slot(value)
        for value in graph.initializers.values():
            if value.const_value is not None:
                self.tensors[id(value)] = value.const_value
            self.local.add(id(value))
        for node in graph:
            self.local.update(id(v) for v in node.outputs)
        self.outer: dict[int, ir.Value] = {}
        for node in graph:
            self._add(node)
        self.results = tuple(self._read(v, engine.default) for v in graph.outputs)

    def _slot(self, value: ir.Value) -> int:
        if id(value) not in self.slots:
            self.slots[id(value)] = len(self.template)
            self.template.append(None)
        return self.slots[id(value)]

    def _read(self, value: ir.Value | None, variant: str | None) -> int:
        if value is None or variant is None or value.name == "":
            return ABSENT
        if id(value) in self.tensors:
            return self._constant(value, variant)
        if id(value) not in self.local and id(value) not in self.outer:
            self.outer[id(value)] = value
            self.captures.append(value)
        return self._slot(value)

    def _constant(self, value: ir.Value, variant: str) -> int:
        key = (id(value), variant)
        if key not in self.constants:
            if key not in self.scope.loaded:
                self.scope.loaded[key] = self.engine.constant(self.tensors[id(value)], variant)
            self.constants[key] = len(self.template)
            self.template.append(self.scope.loaded[key])
        return self.constants[key]

    def _add(self, node: ir.Node) -> None:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self.tensors[id(node.outputs[0])] = constant_tensor(node)
            return
        bodies, captured = self._bodies(node)
        call = make_call(node, self.opsets, self.tensors, bodies)
        run = self.engine.bind(call)
        inputs = [self._read(v, self.engine.variant(call, i)) for i, v in enumerate(node.inputs)]
        inputs += [self._read(v, self.engine.default) for v in captured]
        outputs = tuple(self._slot(v) for v in node.outputs)
        self.calls.append((run, tuple(inputs), outputs, call))

    def _bodies(self, node: ir.Node) -> tuple[dict[str, Body], list[ir.Value]]:
        bodies: dict[str, Body] = {}
        captured: list[ir.Value] = []
        for name, attribute in node.attributes.items():
            if attribute.type is ir.AttributeType.GRAPH:
                program = Program(attribute.as_graph(), self.engine, self.opsets, self.scope)
                start = len(captured)
                captured.extend(program.capture_values)
                bodies[name] = Body(program, start, len(captured))
        return bodies, captured

    def finish(self) -> list[_Step]:
        """Steps with the slots that die after each."""
        keep = {ABSENT, *self.results, *self.constants.values()}
        last: dict[int, int] = {}
        for index, (_, inputs, outputs, _) in enumerate(self.calls):
            last.update(dict.fromkeys((*inputs, *outputs), index))
        dead: dict[int, list[int]] = {}
        for slot, index in last.items():
            if slot not in keep:
                dead.setdefault(index, []).append(slot)
        return [
            _Step(run, inputs, outputs, tuple(dead.get(i, ())), call.name, call.op)
            for i, (run, inputs, outputs, call) in enumerate(self.calls)
        ]


def make_call(
    node: ir.Node,
    opsets: Mapping[str, int],
    tensors: Mapping[int, ir.TensorProtocol],
    bodies: Mapping[str, Body],
) -> Call:
    """The node's facts: defaults filled in from the operator's schema, dtypes as declared."""
    opset = opsets.get(node.domain, 1)
    given = {k: _attribute(a) for k, a in node.attributes.items() if k not in bodies}
    return Call(
        name=node_name(node),
        op=op_name(node),
        since=since_version(node.domain, node.op_type, opset),
        attributes={**_defaults(node.domain, node.op_type, opset), **given},
        inputs=tuple("" if v is None else dtype_name(v) for v in node.inputs),
        outputs=tuple(dtype_name(v) for v in node.outputs),
        known=tuple(_known(v, tensors) for v in node.inputs),
        wanted=tuple(bool(v.name) and _is_read(v) for v in node.outputs),
        ranks=tuple(None if v is None or v.shape is None else len(v.shape) for v in node.inputs),
        sources=frozenset(sources(node)),
        bodies=bodies,
    )


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


@cache
def _defaults(domain: str, op: str, opset: int) -> dict[str, Any]:
    from onnx import defs, helper

    try:
        schema = defs.get_schema(op, opset, domain)
    except defs.SchemaError:
        return {}
    filled = {k: a.default_value for k, a in schema.attributes.items() if a.default_value.name}
    return {k: _plain(helper.get_attribute_value(v)) for k, v in filled.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tuple(_plain(v) for v in value) if isinstance(value, (list, tuple)) else value


def _attribute(attribute: ir.Attr) -> Any:
    if attribute.type is ir.AttributeType.TENSOR:
        return attribute.as_tensor().numpy()
    value = attribute.value
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _known(value: ir.Value | None, tensors: Mapping[int, ir.TensorProtocol]) -> Any:
    """The array of a small constant; weights stay out, they are never read while planning."""
    tensor = tensors.get(id(value)) if value is not None else None
    return tensor.numpy() if tensor is not None and tensor.size <= 4096 else None


def constant_tensor(node: ir.Node) -> ir.TensorProtocol:
    """What a Constant node holds."""
    import numpy as np

    (name, attribute), *_ = node.attributes.items()
    match name:
        case "value":
            return attribute.as_tensor()
        case "value_float" | "value_floats":
            return ir.tensor(np.asarray(attribute.value, np.float32))
        case "value_int" | "value_ints":
            return ir.tensor(np.asarray(attribute.value, np.int64))
        case "value_string" | "value_strings":
            texts = np.asarray(attribute.value, object)
            raw = np.vectorize(lambda t: t.encode() if isinstance(t, str) else t, otypes=[object])(
                texts
            )
            return ir.StringTensor(raw, shape=ir.Shape(texts.shape))
    raise CompileError("Constant {node!r}: {kind} is not mapped.", node=node.name, kind=name)


def prepared(model: ir.Model) -> ir.Model:
    """A copy with local functions inlined and every dtype inferred that can be."""
    from onnx_ir.passes.common import InlinePass

    model = model.clone()
    if model.functions:
        model = InlinePass()(model).model
    if any(v.type is None for n in model.graph.all_nodes() for v in n.outputs):
        infer_in_place(model)
    return model
